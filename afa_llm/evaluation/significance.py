"""Is a before/after difference on the same items more than noise? Paired tests only.

Legend: N items, in the same order before and after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal, stats

from afa_llm.evaluation.estimates import Estimate, Floats, bootstrap_mean, cluster_draws, percentile_interval


@dataclass(frozen=True)
class McNemar:
    """`won`: wrong before, right after. `lost`: right before, wrong after. Unchanged items do not count."""

    won: int
    lost: int
    p_value: float


def mcnemar(before_N: NDArray[np.bool_], after_N: NDArray[np.bool_]) -> McNemar:
    """Exact two-sided McNemar test (1947): under no effect a changed item is won or lost with probability 1/2 each.

    `before_N`, `after_N`: was the item right. p = 1 where nothing changed.
    """
    before_N, after_N = _paired(before_N, after_N, np.bool_)
    won, lost = int((after_N & ~before_N).sum()), int((before_N & ~after_N).sum())
    p_value = float(stats.binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0
    return McNemar(won, lost, p_value)


def sign_flip(differences_N: Floats, unit: float = 1.0) -> float:
    """Exact two-sided sign-flip test of mean difference 0 for differences that are whole multiples of `unit`.

    Under no effect each item's difference is as likely as its negative (Fisher 1935). The sum's distribution is the
    convolution of one scaled binomial for each size of difference. With differences of ±1 it is McNemar's exact test;
    accuracies averaged over T templates are multiples of 1/T. Raises ValueError where a difference is no multiple.
    p-values below about 1e-15 are rounding.
    """
    steps_N = np.rint(np.asarray(differences_N, dtype=np.float64) / unit).astype(np.int64)
    if not np.allclose(steps_N * unit, differences_N, rtol=0, atol=1e-6 * unit):
        raise ValueError(f"differences are not multiples of {unit}")
    sizes, counts = np.unique(np.abs(steps_N[steps_N != 0]), return_counts=True)
    chance = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        chance = signal.convolve(chance, _flipped_sum(size, count))
    sums = np.arange(len(chance)) - len(chance) // 2
    return float(min(1.0, max(0.0, chance[np.abs(sums) >= abs(steps_N.sum())].sum())))


def paired_difference(
    before_N: Floats, after_N: Floats, samples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Mean of after − before with its percentile bootstrap interval; items are resampled as pairs.

    Items with NaN on either side are left out; `count` tells how many stayed. For accuracy pass right/wrong as 1/0.
    """
    before_N, after_N = _paired(before_N, after_N, np.float64)
    return bootstrap_mean(after_N - before_N, samples, confidence, seed)


def mean_of_sets(
    differences: list[Floats],
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    clusters: Sequence[Sequence[str]] | None = None,
) -> Estimate:
    """Unweighted mean over data sets of each set's mean, with the bootstrap stratified by set.

    `clusters`: for each set which of its items belong together; none: each is alone.
    """
    alone = [[str(item) for item in range(len(values_N))] for values_N in differences]
    pairs = zip(differences, clusters or alone, strict=True)
    draws = [cluster_draws(values_N, names, samples, seed + index) for index, (values_N, names) in enumerate(pairs)]
    low, high = percentile_interval(np.mean(draws, axis=0), confidence)
    value = float(np.mean([values_N.mean() for values_N in differences]))
    return Estimate(value, low, high, sum(len(values_N) for values_N in differences))


def minimum_detectable_difference(
    count: int,
    discordance: float,
    significance: float = 0.05,
    power: float = 0.8,
    mean_square: float | None = None,
) -> float:
    """The smallest difference in accuracy that a paired test finds with probability `power`, as a share (0.02 = 2 %).

    `discordance`: share of items whose answer changes between right and wrong (for accuracies averaged over templates:
    the mean size of an item's change, with `mean_square` the mean of its square, which else is the same number).
    Solves Connor (1987), Biometrics 43, with d = `mean_square`:
        δ·√n = z(1 − α/2)·√d + z(power)·√(d − δ²)
    NaN where nothing changes, or where even a change all in one direction (δ = discordance) would not be found.
    """
    square = discordance if mean_square is None else mean_square
    if count <= 0 or discordance <= 0 or square <= 0:
        return math.nan
    z_test, z_power = stats.norm.ppf(1 - significance / 2), stats.norm.ppf(power)
    a, b = count + z_power**2, z_test * math.sqrt(count * square)
    root = (b + math.sqrt(max(0.0, b**2 - a * (z_test**2 - z_power**2) * square))) / a
    return float(root) if root <= discordance else math.nan


def _flipped_sum(size: int, count: int) -> Floats:
    """Probabilities of every whole number from −size·count to size·count as the sum of `count` signs times `size`."""
    chance = np.zeros(2 * size * count + 1)
    chance[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
    return chance


def _paired(before_N: NDArray, after_N: NDArray, kind: type) -> tuple[NDArray, NDArray]:
    before_N, after_N = np.asarray(before_N, dtype=kind), np.asarray(after_N, dtype=kind)
    if before_N.shape != after_N.shape or before_N.ndim != 1:
        raise ValueError(f"paired values need two equal lengths, not {before_N.shape} and {after_N.shape}")
    return before_N, after_N
