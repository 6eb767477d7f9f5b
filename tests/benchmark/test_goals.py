"""Whether a goal is reached, and whether that is shown, on values written down."""

from __future__ import annotations

from typing import Any

import pytest
from hand_matrix import hand_matrix, only

from afa_llm.benchmark.goals import judged


def found(metric: str, ours: list[float], theirs: list[float], **goal: Any) -> dict[str, Any]:
    """The goal of `afa` against `ce` on one set, a value for each seed."""
    values = {"ce": theirs, "afa": ours}
    final = {(arm, seed): {"dev": only(**{metric: x})} for arm, of in values.items() for seed, x in enumerate(of)}
    goals = {"gain": {"arm": "afa", "against": "ce", "metric": metric} | goal}
    matrix = hand_matrix(final, goals=goals)
    return judged(matrix, "gain", matrix.benchmark.goals["gain"])


def test_a_gain_whose_interval_leaves_out_0_is_shown() -> None:
    gain = found("worst_group", [0.80, 0.86, 0.82], [0.75, 0.80, 0.76], at_least=0.05)
    assert gain["value"].value == pytest.approx(0.17 / 3)
    assert (gain["reached"], gain["shown"]) == (True, True)


def test_gains_that_are_the_same_for_all_seeds_show_nothing() -> None:
    """A share of 20 reviews that rises by one of them under both seeds."""
    gain = found("worst_group", [0.80, 0.85], [0.75, 0.80], at_least=0.01)
    assert gain["value"].value == pytest.approx(0.05)
    assert (gain["reached"], gain["shown"]) == (True, False)
