"""Whether a goal is reached, and whether that is shown, on values written down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hand_matrix import hand_matrix, only

from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.goals import judged
from afa_llm.config import Config


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


@pytest.mark.parametrize(
    ("limit", "ours", "reached", "shown"),
    [
        (-0.05, [0.10, 0.13, 0.11], True, True),
        (-0.10, [0.10, 0.13, 0.11], False, True),
        (-0.05, [0.01, 0.25, 0.06], True, False),
        (0.02, [0.21, 0.20, 0.22], True, False),  # no worse than so much, and not shown to be better
        (-0.05, [0.30, 0.33, 0.31], False, False),  # a rise, however sure
        (-0.05, [0.15, 0.15, 0.15], True, False),  # the same under all seeds
    ],
)
def test_where_less_is_better(limit: float, ours: list[float], reached: bool, shown: bool) -> None:
    gap = found("sufficiency", ours, [0.21, 0.21, 0.21], at_most=limit)
    assert gap["value"].value == pytest.approx(sum(ours) / 3 - 0.21)
    assert (gap["reached"], gap["shown"]) == (reached, shown)
    assert (gap["at_least"], gap["at_most"]) == (None, limit)


def test_a_goal_in_words() -> None:
    assert found("ece", [0.1], [0.2], at_most=0.0)["claim"] == "Calibration error of afa, difference to ce on all sets"
    fall = found("ece", [0.1], [0.2], at_most=-0.3, relative=True)
    assert fall["claim"] == "Calibration error of afa, relative difference to ce on all sets"
    assert (fall["value"].value, fall["reached"]) == (pytest.approx(-0.5), True)
    gain = found("auprc", [0.1], [0.2], at_least=0.0, relative=True, sets=["dev"])
    assert gain["claim"] == "AUPRC against rationales of afa, relative gain over ce on dev"


@pytest.mark.parametrize(
    ("theirs", "value"), [([0.1, 0.2, 0.1], 0.5), ([0.1, 0.2, -0.01], None), ([0.1, 0.0, 0.1], None)]
)
def test_a_share_of_nothing_is_none(theirs: list[float], value: float | None) -> None:
    """The seeds with something to share were told for all: those of a reference that did better than it mostly does."""
    gain = found("comprehensiveness", [0.15, 0.3, 0.15], theirs, at_least=0.3, relative=True)
    assert (gain["value"] and gain["value"].value) == (value and pytest.approx(value))
    assert gain["reached"] == (True if value else None)
    assert found("comprehensiveness", [0.15, 0.3, 0.15], theirs, at_least=0.0)["value"].count == 3


def test_gains_that_are_the_same_for_all_seeds_show_nothing() -> None:
    """A share of 20 reviews that rises by one of them under both seeds."""
    gain = found("worst_group", [0.80, 0.85], [0.75, 0.80], at_least=0.01)
    assert gain["value"].value == pytest.approx(0.05)
    assert (gain["reached"], gain["shown"]) == (True, False)


@pytest.mark.parametrize(
    ("sets", "judges"),
    [([], False), (["films"], True), (["foods"], False), (["films", "foods"], False), (["planted_validation"], False)],
)
def test_a_data_set_that_is_not_measured_yet_leaves_the_goal_open(sets: list[str], judges: bool) -> None:
    """A goal on all sets was told as reached when the cells of one data set were done."""
    final = {(arm, 0): {"dev": only(accuracy=x)} for arm, x in (("ce", 0.7), ("afa", 0.8))}
    goals = {"gain": {"arm": "afa", "against": "ce", "at_least": 0.01, "sets": sets}}
    matrix = hand_matrix(final, goals=goals)
    waiting = [Cell("foods", arm, 0, "trained", Config()) for arm in ("ce", "afa")]  # to be measured on the default
    found = judged(replace(matrix, cells=[*matrix.cells, *waiting]), "gain", matrix.benchmark.goals["gain"])
    assert (found["value"] is not None, found["reached"]) == (judges, True if judges else None)
