"""An arm less the reference on average over the evaluation sets: accuracy over seeds and reviews, AUROC over seeds.

All of the same answers: those under the seeds that every set has. Every set weighs alike, and in a set every answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afa_llm.benchmark.statistics import SetAnswers, answer_changes, over_seeds, seed_changes
from afa_llm.evaluation.estimates import Estimate, Resampling
from afa_llm.evaluation.significance import mean_of_sets

Pair = tuple[Mapping[int, SetAnswers], Mapping[int, SetAnswers]]
"""The arm's and the reference's answers to one evaluation set, by seed."""


@dataclass(frozen=True)
class Average:
    """`over_reviews`: reviews (or pairs) are resampled within each set, with all their answers under all seeds."""

    sets: int
    over_seeds: Estimate
    over_reviews: Estimate


def average(pairs: Sequence[Pair], how: Resampling) -> Average | None:
    """None for fewer than two sets, and where no seed has them all."""
    seeds = _common_seeds(pairs)
    if not seeds:
        return None
    by_seed = np.mean([seed_changes(arm, reference, seeds) for arm, reference in pairs], axis=0)
    found = [answer_changes(arm, reference, seeds) for arm, reference in pairs]
    changes, clusters = [change_N for change_N, _ in found], [names for _, names in found]
    by_reviews = mean_of_sets(changes, how.samples, how.confidence, how.seed, clusters)
    return Average(len(pairs), over_seeds(by_seed.tolist(), how.confidence), by_reviews)


def average_of_numbers(
    pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]], confidence: float
) -> Estimate | None:
    """Of a metric without a value per answer: the arm's and the reference's value by seed, for each evaluation set.

    None for fewer than two sets, and where no seed has them all.
    """
    seeds = _common_seeds(pairs)
    by_seed = [sum(arm[seed] - reference[seed] for arm, reference in pairs) / len(pairs) for seed in seeds]
    return over_seeds(by_seed, confidence) if by_seed else None


def _common_seeds(pairs: Sequence[tuple[Mapping[int, Any], Mapping[int, Any]]]) -> list[int]:
    """Seeds that both arms have on every set; none for fewer than two sets, which are no average."""
    if len(pairs) < 2:
        return []
    return sorted(set.intersection(*(set(arm.keys() & reference.keys()) for arm, reference in pairs)))
