"""What a benchmark set out to reach, and whether it did: an arm against another, or against itself before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from afa_llm.benchmark.matrix import Key, Matrix
from afa_llm.benchmark.outcomes import BEHAVIOUR, SHARES, TITLES
from afa_llm.benchmark.settings import BEFORE, Benchmark, Goal
from afa_llm.benchmark.statistics import over_seeds
from afa_llm.data.checklist import KINDS
from afa_llm.evaluation.estimates import Estimate

TESTS = tuple(f"{BEHAVIOUR}{kind}_" for kind in KINDS)
"""Begin the names of pass rates; what tests a data set has is known when it is read."""


def misnamed(benchmark: Benchmark, sets: Mapping[str, Sequence[str]]) -> list[str]:
    """Goals that could never be judged: a metric that isn't one, a set that no cell measures. One message each.

    `sets`: the names of the evaluation sets of each data set. Told before hours of training, not after.
    """
    known = {name: None for data, names in sets.items() for title in names for name in _names((data, title))}
    found = []
    for name, goal in benchmark.goals.items():
        if goal.metric not in TITLES and not goal.metric.startswith(TESTS):
            known_too = f"{BEHAVIOUR}<kind>_<test>, kind one of {', '.join(KINDS)}"
            found.append(
                f"goals.{name}.metric = {goal.metric}: no such metric; there are {', '.join(TITLES)}, {known_too}"
            )
        for unknown in (wanted for wanted in goal.sets if wanted not in known):
            found.append(f"goals.{name}.sets: no cell measures {unknown}; there are {', '.join(known)}")
    return found


def _names(key: Key) -> tuple[str, str, str]:
    """What a goal may call an evaluation set by: its data set, its own name, both."""
    return key[0], key[1], f"{key[0]}/{key[1]}"


def judged(matrix: Matrix, name: str, goal: Goal) -> dict[str, Any]:
    """A goal with what was measured, as in SCHEMA of benchmark/results.py under goals[]."""
    every = matrix.sets()
    keys = [key for key in every if not goal.sets or set(_names(key)) & set(goal.sets)]
    missing = set(goal.sets) - {name for key in every for name in _names(key)}
    missing |= _wanted_data_sets(matrix, goal) - {data_set for data_set, _ in keys}
    by_seed = [[_compared(matrix, key, goal, seed) for key in keys] for seed in matrix.benchmark.seeds]
    whole = [[pair for pair in pairs if pair] for pairs in by_seed if pairs and not missing and all(pairs)]
    # A share of nothing, or of less, is none; without that seed or set the rest would be told for all of them.
    defined = not goal.relative or all(old > 0 for pairs in whole for _, old in pairs)
    per_seed = [_change(pairs, goal.relative) for pairs in whole] if defined else []
    value = over_seeds(per_seed, matrix.how.confidence) if per_seed else None
    reached, shown = _reached(goal, value) if value else (None, None)
    return {
        "name": name,
        "claim": claim(goal),
        "value": value,
        "unit": "percent" if goal.relative else "points" if goal.metric in SHARES else "",
        "at_least": goal.at_least,
        "at_most": goal.at_most,
        "reached": reached,
        "shown": shown,
    }


def _wanted_data_sets(matrix: Matrix, goal: Goal) -> set[str]:
    """Data sets with an evaluation set that the goal is about, finished or not: all sets are not those there by now."""
    return {
        cell.data_set
        for cell in matrix.cells
        for source in cell.config.data.evaluation
        if not goal.sets or set(_names((cell.data_set, source.title))) & set(goal.sets)
    }


def _reached(goal: Goal, value: Estimate) -> tuple[bool, bool]:
    """Whether as much as was wanted was found, and whether its interval leaves out 0; one that is NaN never does."""
    if goal.at_most is not None:
        return value.value <= goal.at_most, value.high < 0
    assert goal.at_least is not None
    return value.value >= goal.at_least, value.low > 0


def _compared(matrix: Matrix, key: Key, goal: Goal, seed: int) -> tuple[float, float] | None:
    """The arm's value on one evaluation set, and what it is compared with; None where either is missing."""
    new = matrix.values(key, goal.arm, goal.metric).get(seed)
    if goal.against == BEFORE:
        old = matrix.values(key, goal.arm, goal.metric, "before").get(seed)
    else:
        old = matrix.values(key, goal.against, goal.metric).get(seed)
    return None if new is None or old is None else (new, old)


def _change(pairs: Sequence[tuple[float, float]], relative: bool) -> float:
    """Mean over evaluation sets of what was wanted."""
    return sum((new - old) / old if relative else new - old for new, old in pairs) / len(pairs)


def claim(goal: Goal) -> str:
    """The goal in words."""
    against = "before training" if goal.against == BEFORE else goal.against
    kind = "gain over" if goal.at_most is None else "difference to"
    where = ", ".join(goal.sets) or "all sets"
    relative = "relative " if goal.relative else ""
    return f"{TITLES.get(goal.metric, goal.metric)} of {goal.arm}, {relative}{kind} {against} on {where}"
