"""Means and shares with their intervals.

Legend: N items, S resamples, U distinct values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Estimate:
    """A value, the interval around it at the run's confidence, and the number of items below it. NaN where none."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: `evaluation.bootstrap_samples`, `evaluation.confidence`, `run.seed`."""

    samples: int = 2000
    confidence: float = 0.95
    seed: int = 0


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


def wilson(successes: int, count: int, confidence: float = 0.95) -> Estimate:
    """A share with the score interval of Wilson (1927), without continuity correction: sane at 0, at 1, for small n."""
    if count == 0:
        return NOTHING
    interval = stats.binomtest(successes, count).proportion_ci(confidence, method="wilson")
    return Estimate(successes / count, float(interval.low), float(interval.high), count)


def bootstrap_mean(
    values_N: Floats | Sequence[float], samples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """The mean of the finite values with its percentile bootstrap interval (Efron 1979); NaN marks a missing value."""
    values_N = finite(values_N)
    if not len(values_N):
        return NOTHING
    low, high = percentile_interval(bootstrap_draws(values_N, samples, seed), confidence)
    return Estimate(float(values_N.mean()), low, high, len(values_N))


def bootstrap_draws(values_N: Floats, samples: int, seed: int) -> Floats:
    """Means [S] of `samples` resamples with replacement.

    How often each distinct value comes up in a resample is multinomial, so counts are drawn and not items: the same
    distribution, and for right/wrong answers a cost that does not grow with N.
    """
    rng = np.random.default_rng(seed)
    values_U, counts_U = np.unique(values_N, return_counts=True)
    rows = max(1, DRAWS_AT_ONCE // len(values_U))
    parts = [
        rng.multinomial(len(values_N), counts_U / len(values_N), size=min(rows, samples - start)) @ values_U
        for start in range(0, samples, rows)
    ]
    return np.concatenate(parts) / len(values_N)


def cluster_draws(values_N: Floats, clusters_N: Sequence[str], samples: int, seed: int) -> Floats:
    """Means [S] over items of `samples` resamples of whole clusters with replacement (Field and Welsh 2007).

    Clusters of equal sum and size are interchangeable, so how often each kind comes up is drawn. With one item a
    cluster these are `bootstrap_draws`.
    """
    kinds, counts = np.unique(np.stack(cluster_sums(values_N, clusters_N)), axis=1, return_counts=True)
    rng = np.random.default_rng(seed)
    rows = max(1, DRAWS_AT_ONCE // len(counts))
    parts = []
    for start in range(0, samples, rows):
        drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=min(rows, samples - start))
        parts.append((drawn @ kinds[0]) / (drawn @ kinds[1]))
    return np.concatenate(parts)


def cluster_sums(values_N: Floats, clusters_N: Sequence[str]) -> tuple[Floats, Floats]:
    """Sum [K] and number of items [K] of each cluster, in the order met."""
    index = {name: k for k, name in enumerate(dict.fromkeys(clusters_N))}
    place_N = np.array([index[name] for name in clusters_N], dtype=np.int64)
    sums = np.bincount(place_N, weights=values_N, minlength=len(index)).astype(np.float64)
    return sums, np.bincount(place_N, minlength=len(index)).astype(np.float64)


def percentile_interval(draws_S: Floats, confidence: float) -> tuple[float, float]:
    """The central `confidence` share of the draws."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws_S, [tail, 1 - tail])
    return float(low), float(high)


def finite(values_N: Floats | Sequence[float]) -> Floats:
    """The values that are neither NaN nor infinite."""
    values_N = np.asarray(values_N, dtype=np.float64)
    return values_N[np.isfinite(values_N)]
