"""The adversary's memory: pairs of the last rounds, drawn alike whatever rank holds them.

Which stored pairs a step learns from is a pure function of (seed, round, step, pair), so ranks and micro-batches can
hold them in any arrangement: each rank draws from what it has, and together they draw the same set. Source: our choice.

Legend: N pairs of views, F features of one view.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from afa_llm.method.view_features import FeaturePair

_MASK_64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Replay:
    """Pairs of at most `rounds` older rounds, on the CPU. A rank's own share."""

    def __init__(self, features: int, rounds: int, seed: int) -> None:
        self.rounds, self.seed = rounds, seed
        self.pairs = FeaturePair(torch.empty(0, features), torch.empty(0, features))
        self.key_N = torch.empty(0, dtype=torch.int64)
        self.round_N = torch.empty(0, dtype=torch.int64)

    def draw(self, now: int, step: int) -> FeaturePair:
        """Stored pairs, each with probability 1 / (rounds that are stored): about as many as one round has."""
        stored = min(self.rounds, now)
        if stored == 0:
            return self.pairs.select(torch.empty(0, dtype=torch.int64))
        uniform_N = uniform(self.key_N, seed=self.seed, numbers=(now, step))
        return self.pairs.select(uniform_N < 1.0 / stored)

    def remember(self, pair: FeaturePair, key_N: Tensor, now: int) -> None:
        """Add the pairs of round `now` (0, 1, …) and forget those of `rounds` rounds ago."""
        joined = self.pairs.join(FeaturePair(pair.clean_NF.detach().cpu(), pair.masked_NF.detach().cpu()))
        key_N = torch.cat([self.key_N, _mixed(key_N.cpu(), now)])
        round_N = torch.cat([self.round_N, torch.full((len(pair.clean_NF),), now, dtype=torch.int64)])
        kept_N = round_N > now - self.rounds
        self.pairs, self.key_N, self.round_N = joined.select(kept_N), key_N[kept_N], round_N[kept_N]

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "clean": self.pairs.clean_NF,
            "masked": self.pairs.masked_NF,
            "key": self.key_N,
            "round": self.round_N,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pairs = FeaturePair(state["clean"].cpu(), state["masked"].cpu())
        self.key_N, self.round_N = state["key"].cpu(), state["round"].cpu()


def uniform(key_N: Tensor, *, seed: int, numbers: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [0, 1), float64 [N], a pure function of each key, the seed and the numbers.

    SplitMix64's finalizer (Steele, Lea and Flood 2014), applied once for each number.
    """
    salt = seed & _MASK_64
    for number in numbers:
        salt = int(_finalized(np.array([(salt ^ number) + _GOLDEN & _MASK_64], dtype=np.uint64))[0])
    bits_N = _finalized(key_N.numpy().astype(np.uint64) ^ np.uint64(salt))
    return torch.from_numpy((bits_N >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mixed(key_N: Tensor, number: int) -> Tensor:
    """Keys that differ between rounds, for the same review and mask come again in the next epoch."""
    shift = np.uint64((number * _GOLDEN + _GOLDEN) & _MASK_64)
    return torch.from_numpy(_finalized(key_N.numpy().astype(np.uint64) ^ shift).astype(np.int64))


def _finalized(bits_N: np.ndarray) -> np.ndarray:
    bits_N = (bits_N ^ (bits_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits_N = (bits_N ^ (bits_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits_N ^ (bits_N >> np.uint64(31))
