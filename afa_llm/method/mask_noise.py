"""Counter-based noise for masks and their fillers: a pure function of names, not of the layout.

The noise of (seed, epoch, review key, mask index, word index) is the same whatever the batch mates, their order, the
number of masks, the padding, the rank or the device, so that a changed layout draws the same masks.
Bits: Philox 4x64 (Salmon et al. 2011) of numpy.

Legend: B reviews, K masks per review, W words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_64_BITS = (1 << 64) - 1
_MASKS, _FILLERS = 0, 1  # streams that share no numbers


def gumbel_noise(
    review_keys: Sequence[int], mask_indices: Sequence[int], width: int, *, seed: int, epoch: int
) -> Tensor:
    """Standard Gumbel noise, [B, K, width] float32 on the CPU, between -3.6 and 36.8, never infinite.

    `mask_indices` names the masks: 0..K-1 for the policy's; give other indices to an independent set (a random
    control). Integers count modulo 2^64. Two reviews with one key get one noise. About 25 µs for each mask.
    """
    bits = _bits(review_keys, mask_indices, width, seed=seed, epoch=epoch, stream=_MASKS)
    return torch.from_numpy(_gumbel(bits).astype(np.float32))


def filler_choice(
    review_keys: Sequence[int], mask_indices: Sequence[int], width: int, fillers: int, *, seed: int, epoch: int
) -> Tensor:
    """Which of several fillers stands in for each word, uniform in [0, fillers), int64 [B, K, width] on the CPU."""
    bits = _bits(review_keys, mask_indices, width, seed=seed, epoch=epoch, stream=_FILLERS)
    return torch.from_numpy((_uniform(bits) * fillers).astype(np.int64))


def _bits(
    review_keys: Sequence[int], mask_indices: Sequence[int], width: int, *, seed: int, epoch: int, stream: int
) -> np.ndarray:
    bits = np.empty((len(review_keys), len(mask_indices), width), dtype=np.uint64)
    key = np.array([seed & _64_BITS, epoch & _64_BITS], dtype=np.uint64)
    for row, review in enumerate(review_keys):
        for column, mask in enumerate(mask_indices):
            # Philox counts its blocks in the first word of the counter; the names stand in the others.
            counter = np.array([0, mask & _64_BITS, int(review) & _64_BITS, stream], dtype=np.uint64)
            bits[row, column] = np.random.Philox(key=key, counter=counter).random_raw(width)
    return bits


def _uniform(bits: np.ndarray) -> np.ndarray:
    """The midpoints of 2^52 cells, so neither 0 nor 1 occurs in float64."""
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _gumbel(bits: np.ndarray) -> np.ndarray:
    return -np.log(-np.log(_uniform(bits)))
