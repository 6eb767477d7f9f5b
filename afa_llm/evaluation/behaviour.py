"""Behavioural tests (CheckList, Ribeiro et al. 2020): the share of cases that pass, by test.

A review's `group` names its test: `MFT …`, `INV …` or `DIR …` (data/checklist.py). A case is one MFT review, or the
reviews of one `pair`, of which one has the side `base`. It passes where

- MFT: the answer is the label;
- INV: every change is answered as the base is, right or wrong;
- DIR: the probability of the label rises from the base to every change, or stays above SATURATED.

That every case has its base is checked before anything is measured (check_cases). A case whose base, or all of whose
changes, were set aside later (too long for a template) is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from afa_llm.data.checklist import BASE, kind_of
from afa_llm.errors import AfaError
from afa_llm.evaluation.comparison import match
from afa_llm.evaluation.estimates import Estimate, Resampling, bootstrap_mean, wilson
from afa_llm.evaluation.prompted_sentiment import ItemRecord
from afa_llm.evaluation.significance import McNemar, mcnemar, paired_difference
from afa_llm.records import Example

Review = TypeVar("Review", Example, ItemRecord)

SATURATED = 0.99
"""A probability that can't be asked to rise further (our choice)."""


@dataclass(frozen=True)
class PassScores:
    """`pass_rate`: share of cases that pass (Wilson).

    `shift`: mean change of the label's probability from the base, for INV its size; none for MFT.
    """

    pass_rate: Estimate
    shift: Estimate | None


@dataclass(frozen=True)
class PassRow:
    """One test under one template. `difference`: of the pass rate, after − before, over the same cases."""

    data_set: str
    template: str
    calibration: str
    kind: str
    test: str
    cases: int
    before: PassScores
    after: PassScores | None = None
    difference: Estimate | None = None
    mcnemar: McNemar | None = None


def behaviour_rows(
    before: Sequence[ItemRecord], after: Sequence[ItemRecord] | None, calibration: str, how: Resampling
) -> list[PassRow]:
    """Every test of one data set and template, in the order met."""
    partner = {} if after is None else {old.example_id: new for old, new in match(before, after)}
    rows = []
    for group in dict.fromkeys(item.group for item in before if kind_of(item.group)):
        kind = kind_of(group)
        old = _cases(kind, [item for item in before if item.group == group])
        row = PassRow(
            before[0].data_set,
            before[0].template,
            calibration,
            kind,
            group.removeprefix(kind).strip(),
            len(old),
            before=_scores(kind, old, calibration, how),
        )
        if after is not None:
            new = {case: [partner[item.example_id] for item in reviews] for case, reviews in old.items()}
            row = _compared(row, old, new, how)
        rows.append(row)
    return rows


def check_cases(data_set: str, examples: Sequence[Example]) -> None:
    """Raises AfaError for a case of INV or DIR that has no base, or several."""
    for group in dict.fromkeys(example.group for example in examples):
        if kind_of(group) in ("", "MFT"):
            continue
        for case, reviews in _by_case([example for example in examples if example.group == group]).items():
            if sum(review.side == BASE for review in reviews) != 1:
                raise AfaError(
                    f"{data_set}, case {case!r} of test {group!r}: wants one review whose side is {BASE!r}, beside "
                    "changes of it; check side_column and pair_column"
                )


def passes(kind: str, reviews: Sequence[ItemRecord], calibration: str) -> bool:
    """Does one case pass? The base of INV and DIR comes first."""
    base, *changed = reviews
    if kind == "MFT":
        return base.right(calibration)
    if kind == "INV":
        return all(item.prediction[calibration] == base.prediction[calibration] for item in changed)
    least = min(_of_label(base, calibration), SATURATED)
    return all(_of_label(item, calibration) > least for item in changed)


def _compared(
    row: PassRow, old: Mapping[str, list[ItemRecord]], new: Mapping[str, list[ItemRecord]], how: Resampling
) -> PassRow:
    old_K, new_K = (
        np.array([passes(row.kind, reviews, row.calibration) for reviews in cases.values()]) for cases in (old, new)
    )
    found = {
        "after": _scores(row.kind, new, row.calibration, how),
        "difference": paired_difference(old_K, new_K, how.samples, how.confidence, how.seed),
        "mcnemar": mcnemar(old_K, new_K),
    }
    return PassRow(**{**vars(row), **found})


def _cases(kind: str, items: Sequence[ItemRecord]) -> dict[str, list[ItemRecord]]:
    """Reviews by case, the base first; one that lacks its base or all of its changes is no case."""
    if kind == "MFT":
        return {item.example_id: [item] for item in items}  # whatever pair a column names
    found = _by_case(items)
    return {case: reviews for case, reviews in found.items() if len(reviews) > 1 and reviews[0].side == BASE}


def _by_case(reviews: Sequence[Review]) -> dict[str, list[Review]]:
    found: dict[str, list[Review]] = {}
    for review in sorted(reviews, key=lambda review: review.side != BASE):
        found.setdefault(review.pair or review.example_id, []).append(review)
    return found


def _scores(kind: str, cases: Mapping[str, list[ItemRecord]], calibration: str, how: Resampling) -> PassScores:
    passed = sum(passes(kind, reviews, calibration) for reviews in cases.values())
    return PassScores(wilson(passed, len(cases), how.confidence), _shift(kind, cases, calibration, how))


def _shift(kind: str, cases: Mapping[str, list[ItemRecord]], calibration: str, how: Resampling) -> Estimate | None:
    if kind == "MFT":
        return None
    shifts = []
    for base, *changed in cases.values():
        moved = np.array([_of_label(item, calibration) - _of_label(base, calibration) for item in changed])
        shifts.append(float(np.abs(moved).mean() if kind == "INV" else moved.mean()))
    return bootstrap_mean(shifts, how.samples, how.confidence, how.seed)


def _of_label(item: ItemRecord, calibration: str) -> float:
    return item.probability[calibration][item.label]
