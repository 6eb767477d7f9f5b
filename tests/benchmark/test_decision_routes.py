"""Which keys a query sees when a route is taken away: a worked example of one review.

Left padding, a token before the review, words 0 (two tokens) and 1, a token of the template after them, the readout.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from afa_llm.records import View

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "decision_routes.py"
PAD, BEFORE, W0, W0_END, W1, AFTER, READOUT = range(7)
WORDS = {W0, W0_END, W1}


def seen(route: str) -> list[set[int]]:
    """For each query the keys that it sees."""
    spec = importlib.util.spec_from_file_location("decision_routes", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    word_BT = torch.tensor([[-1, -1, 0, 0, 1, -1, -1]])
    mask_BT = torch.tensor([[0, 1, 1, 1, 1, 1, 1]])
    view = View(torch.zeros(1, 7, dtype=torch.long), mask_BT, torch.arange(7)[None], word_BT, torch.ones(1, 2).bool())
    return [set(row.nonzero().flatten().tolist()) for row in script.seen_keys(view, route)[0]]


@pytest.mark.parametrize(
    ("route", "blind"),
    [
        ("nothing", {}),
        ("readout", {READOUT: WORDS}),
        ("template", {AFTER: WORDS}),
        ("context", {W1: {W0, W0_END}}),
        ("template and context", {AFTER: WORDS, W1: {W0, W0_END}}),
    ],
)
def test_a_route_taken_away(route: str, blind: dict[int, set[int]]) -> None:
    """Causal, never the padding but for itself, and without the words that the route led to."""
    whole = [set(range(BEFORE, query + 1)) for query in range(7)]
    whole[PAD] = {PAD}
    assert seen(route) == [keys - blind.get(query, set()) for query, keys in enumerate(whole)]
