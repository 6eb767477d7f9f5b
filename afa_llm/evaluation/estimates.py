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

_DRAWS_AT_ONCE = 4_000_000


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
    rows = max(1, _DRAWS_AT_ONCE // len(values_U))
    parts = [
        rng.multinomial(len(values_N), counts_U / len(values_N), size=min(rows, samples - start)) @ values_U
        for start in range(0, samples, rows)
    ]
    return np.concatenate(parts) / len(values_N)


def percentile_interval(draws_S: Floats, confidence: float) -> tuple[float, float]:
    """The central `confidence` share of the draws."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws_S, [tail, 1 - tail])
    return float(low), float(high)


def finite(values_N: Floats | Sequence[float]) -> Floats:
    """The values that are neither NaN nor infinite."""
    values_N = np.asarray(values_N, dtype=np.float64)
    return values_N[np.isfinite(values_N)]
