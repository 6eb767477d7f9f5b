"""Items that belong together (an original and its edits) are no independent draws: statistics that keep them together.

Legend: N items, K clusters, S resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afa_llm.evaluation.estimates import NOTHING, Estimate, Floats, Resampling, percentile_interval
from afa_llm.evaluation.significance import minimum_detectable_difference, sign_flip


def cluster_mean(values_N: Floats, clusters_N: Sequence[str], how: Resampling) -> Estimate:
    """The mean over items; its percentile interval resamples whole clusters (cluster bootstrap, Field & Welsh 2007).

    `count` is the number of items. With one item a cluster it is the ordinary bootstrap of the mean.
    """
    if not len(values_N):
        return NOTHING
    sum_K, size_K = cluster_sums(values_N, clusters_N)
    # Clusters of equal sum and size are interchangeable: how often each kind comes up is multinomial.
    kinds, counts = np.unique(np.stack([sum_K, size_K]), axis=1, return_counts=True)
    rng = np.random.default_rng(how.seed)
    drawn = rng.multinomial(len(sum_K), counts / len(sum_K), size=how.samples)
    low, high = percentile_interval((drawn @ kinds[0]) / (drawn @ kinds[1]), how.confidence)
    return Estimate(float(np.mean(values_N)), low, high, len(values_N))


def cluster_sums(values_N: Floats, clusters_N: Sequence[str]) -> tuple[Floats, Floats]:
    """Sum [K] and number of items [K] of each cluster, in the order met."""
    index = {name: k for k, name in enumerate(dict.fromkeys(clusters_N))}
    place_N = np.array([index[name] for name in clusters_N], dtype=np.int64)
    return (
        np.bincount(place_N, weights=values_N, minlength=len(index)).astype(np.float64),
        np.bincount(place_N, minlength=len(index)).astype(np.float64),
    )


def cluster_sign_flip(change_N: Floats, clusters_N: Sequence[str], unit: float) -> float:
    """The exact sign-flip test where a cluster's changes keep their signs to each other: one flip a cluster."""
    return sign_flip(cluster_sums(change_N, clusters_N)[0], unit)


def cluster_detectable(change_N: Floats, clusters_N: Sequence[str], significance: float) -> float:
    """As `minimum_detectable_difference`, with clusters as the units whose changes are seen."""
    if not len(change_N):
        return minimum_detectable_difference(0, 0.0, significance)
    sum_K, size_K = cluster_sums(change_N, clusters_N)
    share_K = sum_K / size_K.mean()
    size, square = float(np.abs(share_K).mean()), float((share_K**2).mean())
    return minimum_detectable_difference(len(share_K), size, significance, mean_square=square)
