"""Two arms' focus compared review by review, as their answers are: over the reviews for which both are defined.

Some metrics are not defined for every review (a normalised fall where hiding every word changes little), and for which
ones differs between arms: a difference of the arms' own means would compare unlike reviews. Values of single reviews
also tell how much of a difference is due to the reviews that were drawn.

Legend: N values (seed, review), K reviews or pairs with all their values, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from afa_llm.benchmark.statistics import (
    SAME_PROBABILITY,
    Difference,
    both_ways,
    detectable_over_seeds,
    over_seeds,
    paired_t,
)
from afa_llm.evaluation.estimates import Floats, Resampling, cluster_sums


@dataclass(frozen=True)
class SetValues:
    """One metric of one cell on one evaluation set. `value`: example id -> finite number, of reviews that have one.
    `cluster`: id -> what the review belongs to; one that is missing is alone."""

    value: Mapping[str, float]
    cluster: Mapping[str, str] = field(default_factory=dict)


def compare_by_review(
    arm: Mapping[int, SetValues], reference: Mapping[int, SetValues], how: Resampling
) -> Difference | None:
    """The metric of two arms, by seed; None without a seed under which some review has it in both.

    Over seeds as in `compare_metric`, of the mean difference under each seed. Over reviews: t-interval and paired
    t-test whose units are reviews (or pairs) with all their values, since those of one review are not independent. A
    difference is claimed by the larger p-value; where every seed repeats the same values the one over reviews stands
    alone. Source: our choice, as for accuracy, whose exact test continuous values don't allow.
    """
    changes = {seed: _changes(arm[seed], reference[seed]) for seed in sorted(arm.keys() & reference.keys())}
    changes = {seed: change for seed, change in changes.items() if change}
    if not changes:
        return None
    per_seed = [float(np.mean(list(change.values()))) for change in changes.values()]
    change_N = np.array([value for change in changes.values() for value in change.values()])
    clusters = [reference[seed].cluster.get(i, f"item {i}") for seed, change in changes.items() for i in change]
    share_K = _shares(change_N, clusters)
    over_reviews = replace(over_seeds(share_K, how.confidence), count=len(change_N))
    by_reviews = detectable_over_seeds(share_K, 1 - how.confidence)  # reviews are the units of the same test here
    repeated = all(_repeated(of, list(changes)) for of in (arm, reference))
    return both_ways(per_seed, over_reviews, paired_t(share_K), by_reviews, repeated, how)


def _changes(new: SetValues, old: SetValues) -> dict[str, float]:
    return {i: new.value[i] - value for i, value in old.value.items() if i in new.value}


def _shares(change_N: Floats, clusters_N: Sequence[str]) -> list[float]:
    """What each cluster adds to the mean over all values, times the number of clusters [K]: their mean is that mean."""
    sum_K, size_K = cluster_sums(change_N, clusters_N)
    return [float(share) for share in sum_K / size_K.mean()]


def _repeated(of: Mapping[int, SetValues], seeds: Sequence[int]) -> bool:
    """Whether several seeds have the very same values, but for what passes of another order round differently."""
    first = of[seeds[0]].value
    return len(seeds) > 1 and all(
        of[seed].value.keys() == first.keys()
        and all(abs(of[seed].value[i] - value) <= SAME_PROBABILITY for i, value in first.items())
        for seed in seeds
    )
