"""The average over evaluation sets against sums and a bootstrap worked out by hand."""

from __future__ import annotations

import pytest

from afa_llm.benchmark.averages import Pair, average, average_of_numbers
from afa_llm.benchmark.statistics import SetAnswers
from afa_llm.evaluation.estimates import Resampling


def answers(right: list[float], clusters: list[str]) -> SetAnswers:
    names = [str(place) for place in range(len(right))]
    cluster = dict(zip(names, clusters, strict=True))
    return SetAnswers(dict(zip(names, right, strict=True)), {}, cluster, dict.fromkeys(names, 7), 1)


def pair(right_by_seed: dict[int, list[float]], clusters: list[str]) -> Pair:
    """An arm with these answers, and a reference that is always wrong."""
    arm = {seed: answers(right, clusters) for seed, right in right_by_seed.items()}
    return arm, {seed: answers([0.0] * len(clusters), clusters) for seed in arm}


NINE_AND_ONE = ["nine"] * 9 + ["one"]


@pytest.mark.parametrize("seeds", [(0, 1), (0, 1, 2)])
def test_answers_weigh_alike_and_clusters_are_drawn_whole(seeds: tuple[int, ...]) -> None:
    """A cluster of nine answers that stay and one of one that changes: 1 of 10, not the mean of the clusters, 1/2.

    Two draws of the two clusters give 0/18, 1/10 (twice as often) or 2/2; the mean of two such sets is 0, 0.05, 0.1,
    0.5, 0.55, 1 in 1, 4, 4, 2, 4, 1 of 16. The middle half reaches from the fifth of the 16 to the twelfth: 0.05 to
    0.55. However many seeds repeat the same answers, they tell no more.
    """
    changed = dict.fromkeys(seeds, [0.0] * 9 + [1.0])
    found = average([pair(changed, NINE_AND_ONE)] * 2, Resampling(4000, 0.5, 0))
    assert found is not None
    assert (found.sets, found.over_seeds.count, found.over_reviews.count) == (2, len(seeds), 20 * len(seeds))
    assert found.over_seeds.value == pytest.approx(0.1)
    assert found.over_reviews.value == pytest.approx(0.1)
    assert (found.over_reviews.low, found.over_reviews.high) == pytest.approx((0.05, 0.55))


def test_both_views_are_of_the_seeds_that_every_set_has() -> None:
    """Seed 2 of the first set, whose answers are all right, has no part; sets of 10 and of 2 weigh alike."""
    first = {0: [1.0] + [0.0] * 9, 1: [1.0] * 3 + [0.0] * 7, 2: [1.0] * 10}
    second = {0: [1.0, 0.0], 1: [1.0, 1.0]}
    alone = [f"item {place}" for place in range(10)]
    found = average([pair(first, alone), pair(second, alone[:2])], Resampling(400, 0.95, 0))
    assert found is not None
    assert found.over_seeds.count == 2
    assert found.over_seeds.value == pytest.approx(((0.1 + 0.5) / 2 + (0.3 + 1.0) / 2) / 2)
    assert found.over_reviews.value == pytest.approx(found.over_seeds.value)
    assert found.over_reviews.high < 1.0


def test_one_set_and_sets_without_a_common_seed_have_no_average() -> None:
    sets = [pair({seed: [1.0]}, ["item"]) for seed in (0, 1)]
    assert average(sets[:1], Resampling()) is None
    assert average(sets, Resampling()) is None


def test_numbers_are_averaged_over_the_seeds_that_every_set_has() -> None:
    first = {0: 0.9, 1: 0.8, 2: 0.1}, {0: 0.7, 1: 0.5, 2: 0.9}
    second = {0: 0.6, 1: 0.6}, {0: 0.6, 1: 0.7, 2: 0.2}
    found = average_of_numbers([first, second], 0.95)
    assert found is not None
    assert (found.count, found.value) == (2, pytest.approx(((0.2 + 0.0) / 2 + (0.3 - 0.1) / 2) / 2))
    assert average_of_numbers([first], 0.95) is None
    assert average_of_numbers([({0: 1.0}, {0: 1.0}), ({1: 1.0}, {1: 1.0})], 0.95) is None
