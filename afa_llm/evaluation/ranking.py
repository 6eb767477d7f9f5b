"""Do the answers rank reviews better than before, whatever the threshold? AUROC before and after, paired.

A prompted model often favours a label. Tuning that only takes the favour away raises accuracy, and leaves this alone.

Legend: N items, C labels, S resamples, G distinct odds, K clusters (reviews that belong together).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from afa_llm.evaluation.estimates import DRAWS_AT_ONCE, Estimate, Floats, Ints, Resampling, percentile_interval
from afa_llm.evaluation.prompted_sentiment import ItemRecord, log_probabilities
from afa_llm.evaluation.scores import odds


@dataclass(frozen=True)
class Ranking:
    """AUROC (see `scores.auroc`) averaged over templates. `difference`: after − before.

    The intervals are percentiles of one bootstrap over reviews (or the pairs that they belong to), in which a review's
    answers under all templates, before and after, stay together.
    """

    before: Estimate
    after: Estimate
    difference: Estimate


def compare_ranking(
    before: Sequence[Sequence[ItemRecord]],
    after: Sequence[Sequence[ItemRecord]],
    calibration: str,
    clusters_N: Sequence[str],
    how: Resampling,
) -> Ranking | None:
    """Of one data set: the items of each template, all in the order of `clusters_N`. None without two labels.

    Resamples of one label only have no AUROC and are left out.
    """
    count = len(clusters_N)
    if not before or len({item.label for item in before[0]}) < 2:
        return None
    phases = [[_Ranks.of(items, calibration) for items in phase] for phase in (before, after)]
    whole = np.ones((1, count))
    value = [float(_mean_auroc(phase, whole)[0]) for phase in phases]
    drawn = [[_mean_auroc(phase, weight_SN) for phase in phases] for weight_SN in _weights(clusters_N, how)]
    draws = [np.concatenate(parts) for parts in zip(*drawn, strict=True)]

    def estimate(value: float, draws_S: Floats) -> Estimate:
        return Estimate(value, *percentile_interval(draws_S[np.isfinite(draws_S)], how.confidence), count)

    return Ranking(
        estimate(value[0], draws[0]), estimate(value[1], draws[1]), estimate(value[1] - value[0], draws[1] - draws[0])
    )


@dataclass(frozen=True)
class _Ranks:
    """Items of one template by the odds of each label: for each label where each stands, and which are its own."""

    of_label: tuple[tuple[Ints, np.ndarray], ...]

    @classmethod
    def of(cls, items: Sequence[ItemRecord], calibration: str) -> _Ranks:
        log_prob_NC, label_N = log_probabilities(items, calibration), np.array([item.label for item in items])
        labels = np.unique(label_N).tolist()
        found = []
        # two labels have the same AUROC: one's odds are the other's, turned round
        for label in labels[:1] if log_prob_NC.shape[1] == 2 else labels:
            found.append((np.unique(odds(log_prob_NC, label), return_inverse=True)[1], label_N == label))
        return cls(tuple(found))


def weighted_auroc(rank_N: Ints, is_label_N: np.ndarray, weight_SN: Floats) -> Floats:
    """AUROC [S] where item n counts `weight_SN[s, n]` times; equal ranks count half. NaN where one side is empty."""
    order_N = np.argsort(rank_N, kind="stable")
    start_G = np.flatnonzero(np.diff(rank_N[order_N], prepend=-1))
    weight_SN = weight_SN[:, order_N]
    own_SG = np.add.reduceat(weight_SN * is_label_N[order_N], start_G, axis=1)
    other_SG = np.add.reduceat(weight_SN * ~is_label_N[order_N], start_G, axis=1)
    below_SG = np.cumsum(other_SG, axis=1) - other_SG / 2
    with np.errstate(invalid="ignore"):
        return (own_SG * below_SG).sum(axis=1) / (own_SG.sum(axis=1) * other_SG.sum(axis=1))


def _mean_auroc(phase: Sequence[_Ranks], weight_SN: Floats) -> Floats:
    """Mean [S] over templates of the mean over the labels that a resample has; NaN where it has but one."""
    means = []
    for template in phase:
        of_label = np.stack([weighted_auroc(*ranks, weight_SN) for ranks in template.of_label])
        there = np.isfinite(of_label)
        with np.errstate(invalid="ignore"):
            means.append(np.where(there, of_label, 0).sum(axis=0) / there.sum(axis=0))
    return np.mean(means, axis=0)


def _weights(clusters_N: Sequence[str], how: Resampling) -> Iterator[Floats]:
    """How often each item is in each resample of whole clusters with replacement [S, N], some resamples at a time."""
    place_N = np.unique(np.asarray(clusters_N), return_inverse=True)[1]
    clusters = int(place_N.max()) + 1
    rng = np.random.default_rng(how.seed)
    rows = max(1, DRAWS_AT_ONCE // len(place_N))
    for start in range(0, how.samples, rows):
        drawn_SK = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=min(rows, how.samples - start))
        yield drawn_SK[:, place_N].astype(np.float64)
