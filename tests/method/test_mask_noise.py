"""Noise named by seed, epoch, review, mask and word."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats

from afa_llm.method.mask_noise import _gumbel, filler_choice, gumbel_noise


def test_a_function_of_its_names_alone() -> None:
    full = gumbel_noise([7, 2**63 - 1, 9], range(5), 33, seed=3, epoch=4)
    part = gumbel_noise([9, 7], [3, 1], 8, seed=3, epoch=4)
    assert torch.equal(part, full[[2, 0]][:, [3, 1]][..., :8])


def test_every_name_counts() -> None:
    base = {"review_keys": [7], "mask_indices": [1], "width": 16, "seed": 3, "epoch": 4}
    changes = [{"review_keys": [8]}, {"mask_indices": [2]}, {"seed": 4}, {"epoch": 5}, {"review_keys": [7 + 2**62]}]
    noises = [gumbel_noise(**{**base, **change}) for change in [{}, *changes]]
    flat = torch.stack([noise.flatten() for noise in noises])
    assert len(flat.flatten().unique()) == flat.numel()


def test_torch_and_numpy_generators_are_not_touched() -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    gumbel_noise([1], [0], 4, seed=0, epoch=0)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()


def test_distribution() -> None:
    noise = gumbel_noise(range(50), range(4), 100, seed=1, epoch=1).double().flatten().numpy()
    # Fixed seed; p measured: 0.46.
    assert stats.kstest(noise, "gumbel_r").pvalue > 0.01


def test_never_infinite() -> None:
    ends = _gumbel(np.array([0, 2**64 - 1], dtype=np.uint64)).astype(np.float32)
    assert np.isfinite(ends).all()
    assert ends[0] == np.float32(-math.log(53 * math.log(2)))
    assert abs(ends[1] - 53 * math.log(2)) < 0.01


def test_empty_sizes() -> None:
    assert gumbel_noise([], [0, 1], 3, seed=0, epoch=0).shape == (0, 2, 3)
    assert gumbel_noise([1], [0], 0, seed=0, epoch=0).shape == (1, 1, 0)


def test_fillers_are_chosen_by_name_too() -> None:
    full = filler_choice([7, 2**63 - 1, 9], range(5), 33, 4, seed=3, epoch=4)
    assert torch.equal(filler_choice([9, 7], [3, 1], 8, 4, seed=3, epoch=4), full[[2, 0]][:, [3, 1]][..., :8])
    assert not torch.equal(full, filler_choice([7, 2**63 - 1, 9], range(5), 33, 4, seed=3, epoch=5))


def test_fillers_are_uniform_and_know_nothing_of_the_masks() -> None:
    choice = filler_choice(range(50), range(4), 100, 3, seed=1, epoch=1).flatten()
    noise = gumbel_noise(range(50), range(4), 100, seed=1, epoch=1).flatten()
    # Fixed seed; p measured: 0.15 and 0.64.
    assert stats.chisquare(choice.bincount(minlength=3).numpy()).pvalue > 0.01
    assert stats.kruskal(*(noise[choice == filler].numpy() for filler in range(3))).pvalue > 0.01
