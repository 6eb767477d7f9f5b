"""Counterfactual pairs and contrast sets: is a review right together with its edits?

A file of pairs is jsonl, one review a line: `text`, `label`, `pair_id` (the same for reviews that belong together) and
`side` (original, edited, or names of your own); Source.pair_column and side_column name the fields. A label that should
turn makes a model that ignores the edit wrong on one side, so both right is what counts (contrast consistency, Gardner
et al. 2020, arXiv 2004.02709; counterfactual pairs, Kaushik et al. 2020, arXiv 1909.12434). Both right depends on where
the threshold falls; whether the edit moves the answer the right way at all does not (our choice, as AUROC beside
accuracy).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from afa_llm.evaluation.clusters import cluster_mean
from afa_llm.evaluation.comparison import match
from afa_llm.evaluation.estimates import Estimate, Resampling, wilson
from afa_llm.evaluation.prompted_sentiment import LOG_PROB_FLOOR, ItemRecord
from afa_llm.evaluation.significance import McNemar, mcnemar, paired_difference


@dataclass(frozen=True)
class PairScores:
    """`consistency`: share of pairs all of whose reviews are right (Wilson). `accuracy`: of their reviews, clustered.

    `in_order`: see there, mean over pairs (bootstrap). `by_side`: accuracy of the reviews of each side (Wilson).
    """

    consistency: Estimate
    in_order: Estimate
    accuracy: Estimate
    by_side: dict[str, Estimate]


@dataclass(frozen=True)
class PairComparison:
    """Before against after on the same pairs: consistency and order by pairs, accuracy of their reviews clustered by
    pair."""

    consistency: Estimate
    in_order: Estimate
    test: McNemar
    accuracy: Estimate


@dataclass(frozen=True)
class PairRow:
    """One data set and template. `left_out`: reviews without a pair, or alone in it."""

    data_set: str
    template: str
    calibration: str
    pairs: int
    left_out: int
    before: PairScores
    after: PairScores | None = None
    comparison: PairComparison | None = None


def pair_row(
    before: Sequence[ItemRecord], after: Sequence[ItemRecord] | None, calibration: str, how: Resampling
) -> PairRow | None:
    """Scores of the pairs of one data set and template; none where no two reviews belong together.

    Raises AfaError where before and after hold different items.
    """
    members = [item for reviews in complete_pairs(before).values() for item in reviews]
    if not members:
        return None
    first = members[0]
    row = PairRow(
        first.data_set,
        first.template,
        calibration,
        pairs=len(complete_pairs(before)),
        left_out=len(before) - len(members),
        before=_scores(members, calibration, how),
    )
    if after is None:
        return row
    partner = {old.example_id: new for old, new in match(before, after)}
    others = [partner[item.example_id] for item in members]
    compared = {
        "after": _scores(others, calibration, how),
        "comparison": _compare(members, others, calibration, how),
    }
    return PairRow(**{**vars(row), **compared})


def complete_pairs(items: Sequence[ItemRecord]) -> dict[str, list[ItemRecord]]:
    """Reviews by pair, in the order met; pairs of one review are left out."""
    found: dict[str, list[ItemRecord]] = {}
    for item in items:
        if item.pair:
            found.setdefault(item.pair, []).append(item)
    return {pair: reviews for pair, reviews in found.items() if len(reviews) > 1}


def consistent(items: Sequence[ItemRecord], calibration: str) -> NDArray[np.bool_]:
    """For each complete pair: are all its reviews right?"""
    pairs = complete_pairs(items).values()
    return np.array([all(item.right(calibration) for item in reviews) for reviews in pairs], dtype=np.bool_)


def in_order(items: Sequence[ItemRecord], calibration: str) -> NDArray[np.float64]:
    """For each complete pair: share of its reviews of unlike labels a and b that the odds of a against b put in order.

    Equal odds count half. NaN for pairs whose reviews all have one label.
    """
    return np.array([_order(reviews, calibration) for reviews in complete_pairs(items).values()], dtype=np.float64)


def _order(reviews: Sequence[ItemRecord], calibration: str) -> float:
    found = []
    for one, other in itertools.combinations(reviews, 2):
        if one.label != other.label:
            gap = _odds(one, one.label, other.label, calibration) - _odds(other, one.label, other.label, calibration)
            found.append((1 + np.sign(gap)) / 2)
    return float(np.mean(found)) if found else math.nan


def _odds(item: ItemRecord, label: int, other: int, calibration: str) -> float:
    """Log odds; of probabilities that reach 1 in float64 the small one still tells."""
    probability_C = np.maximum(item.probability[calibration], math.exp(LOG_PROB_FLOOR))
    return float(np.log(probability_C[label]) - np.log(probability_C[other]))


def _mean_order(order_K: NDArray[np.float64], how: Resampling) -> Estimate:
    known_K = order_K[np.isfinite(order_K)]
    return cluster_mean(known_K, [str(place) for place in range(len(known_K))], how)


def _scores(items: Sequence[ItemRecord], calibration: str, how: Resampling) -> PairScores:
    both_K, right_N = consistent(items, calibration), _right(items, calibration)
    sides = np.array([item.side for item in items], dtype=object)
    return PairScores(
        consistency=wilson(int(both_K.sum()), len(both_K), how.confidence),
        in_order=_mean_order(in_order(items, calibration), how),
        accuracy=cluster_mean(right_N, [item.pair for item in items], how),
        by_side={
            side: wilson(int(right_N[sides == side].sum()), int((sides == side).sum()), how.confidence)
            for side in sorted({item.side for item in items if item.side})
        },
    )


def _compare(
    before: Sequence[ItemRecord], after: Sequence[ItemRecord], calibration: str, how: Resampling
) -> PairComparison:
    old_K, new_K = consistent(before, calibration), consistent(after, calibration)
    both_K = old_K.astype(np.float64), new_K.astype(np.float64)
    change_N = _right(after, calibration) - _right(before, calibration)
    return PairComparison(
        consistency=paired_difference(*both_K, how.samples, how.confidence, how.seed),
        in_order=_mean_order(in_order(after, calibration) - in_order(before, calibration), how),
        test=mcnemar(old_K, new_K),
        accuracy=cluster_mean(change_N, [item.pair for item in before], how),
    )


def _right(items: Sequence[ItemRecord], calibration: str) -> NDArray[np.float64]:
    return np.array([item.right(calibration) for item in items], dtype=np.float64)
