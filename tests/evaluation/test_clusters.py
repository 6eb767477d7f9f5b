"""Clustered statistics against the plain ones, exact enumeration, and a written-out bootstrap."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from afa_llm.evaluation.clusters import cluster_detectable, cluster_mean, cluster_sign_flip, cluster_sums
from afa_llm.evaluation.estimates import Resampling, bootstrap_mean
from afa_llm.evaluation.significance import minimum_detectable_difference, sign_flip

HOW = Resampling(4000, 0.95, 0)


def test_sums_by_hand() -> None:
    sums, sizes = cluster_sums(np.array([1.0, 2.0, 4.0, 8.0]), ["b", "a", "b", "c"])
    assert (sums.tolist(), sizes.tolist()) == ([5.0, 2.0, 8.0], [2.0, 1.0, 1.0])


def test_single_items_are_the_ordinary_bootstrap() -> None:
    values = np.random.default_rng(0).integers(0, 2, 200).astype(float)
    alone = [str(k) for k in range(200)]
    assert cluster_mean(values, alone, HOW) == bootstrap_mean(values, HOW.samples, HOW.confidence, HOW.seed)
    assert cluster_sign_flip(values, alone, 1.0) == sign_flip(values)
    change = values - np.random.default_rng(1).integers(0, 2, 200)
    share = float(np.abs(change).mean())
    assert cluster_detectable(change, alone, 0.05) == pytest.approx(minimum_detectable_difference(200, share))


def test_interval_is_that_of_clusters_drawn_one_by_one() -> None:
    rng = np.random.default_rng(3)
    clusters = [f"c{k}" for k in rng.integers(0, 25, 120)]
    level = {name: rng.random() for name in clusters}
    values = np.array([level[name] for name in clusters]) + 0.1 * rng.random(120)
    members = {name: values[[c == name for c in clusters]] for name in dict.fromkeys(clusters)}
    names = list(members)
    means = []
    for _ in range(4000):  # the oracle: draw clusters, pool their items, take the mean
        drawn = [members[names[k]] for k in rng.integers(0, len(names), len(names))]
        means.append(np.concatenate(drawn).mean())
    found = cluster_mean(values, clusters, HOW)
    assert found.value == pytest.approx(values.mean()) and found.count == 120
    # two bootstraps of 4000 draws: their ends differ by about a twentieth of the width
    width = np.quantile(means, 0.975) - np.quantile(means, 0.025)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.1 * width)


def test_items_that_repeat_each_other_tell_no_more_than_one() -> None:
    values = np.random.default_rng(4).integers(0, 2, 50).astype(float)
    once = cluster_mean(values, [str(k) for k in range(50)], HOW)
    four_times = cluster_mean(np.repeat(values, 4), [str(k) for k in np.repeat(np.arange(50), 4)], HOW)
    assert (four_times.low, four_times.high) == pytest.approx((once.low, once.high))
    assert bootstrap_mean(np.repeat(values, 4)).high < once.high - 0.04  # what treating them as independent would say


def test_sign_flip_flips_whole_clusters() -> None:
    change = np.array([1.0, 1.0, 0.0, 1.0, -1.0, 1.0])
    clusters = ["a", "a", "b", "b", "c", "d"]  # sums 2, 1, -1, 1
    sums = [2, 1, -1, 1]
    flips = [sum(s * x for s, x in zip(signs, sums, strict=True)) for signs in itertools.product((1, -1), repeat=4)]
    expected = np.mean([abs(flip) >= abs(sum(sums)) for flip in flips])
    assert cluster_sign_flip(change, clusters, 1.0) == pytest.approx(expected)


def test_repeating_every_item_does_not_sharpen_the_detectable_difference() -> None:
    change = np.random.default_rng(5).choice([-1.0, 0.0, 1.0], 100, p=[0.1, 0.8, 0.1])
    alone = cluster_detectable(change, [str(k) for k in range(100)], 0.05)
    repeated = cluster_detectable(np.repeat(change, 2), [str(k) for k in np.repeat(np.arange(100), 2)], 0.05)
    assert repeated == pytest.approx(alone)


def test_nothing() -> None:
    assert cluster_mean(np.zeros(0), [], HOW).count == 0
    assert math.isnan(cluster_detectable(np.zeros(0), [], 0.05))
