"""Prompts to tensors, and which reviews make a step, whoever computes them.

Legend: B reviews, T tokens, W words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from afa_llm.records import Batch, Prompt

WINDOW_STEPS = 50  # sorted by length together: enough to leave little padding, small enough to keep the order random


def review_key(example_id: str) -> int:
    """A 63-bit key of a review, the same in every process and Python (BLAKE2b of the id)."""
    return int.from_bytes(hashlib.blake2b(example_id.encode(), digest_size=8).digest(), "big") >> 1


def collate(
    prompts: Sequence[Prompt],
    pad_token_id: int,
    *,
    weights: Sequence[float] | None = None,
    device: str | torch.device = "cpu",
) -> Batch:
    """Left-padded tensors, so that the readout position is the last column. `weights` default to 1.

    A word without a token of its own (two words in one token) is not eligible: its `word_mask_BW` is False.
    Raises ValueError for no prompts, or a number of weights that differs from theirs.
    """
    if not prompts:
        raise ValueError("no prompts to collate")
    if weights is not None and len(weights) != len(prompts):
        raise ValueError(f"{len(weights)} weights for {len(prompts)} prompts")
    T = max(len(prompt.token_ids) for prompt in prompts)
    W = max(1, max(len(prompt.example.words) for prompt in prompts))
    input_ids_BT = np.full((len(prompts), T), pad_token_id, dtype=np.int64)
    attention_mask_BT = np.zeros((len(prompts), T), dtype=np.int64)
    word_of_token_BT = np.full((len(prompts), T), -1, dtype=np.int64)
    word_mask_BW = np.zeros((len(prompts), W), dtype=bool)
    for b, prompt in enumerate(prompts):
        start = T - len(prompt.token_ids)
        input_ids_BT[b, start:] = prompt.token_ids
        attention_mask_BT[b, start:] = 1
        word_of_token_BT[b, start:] = prompt.word_of_token
        word_mask_BW[b, [word for word in prompt.word_of_token if word >= 0]] = True
    return Batch(
        input_ids_BT=torch.from_numpy(input_ids_BT).to(device),
        attention_mask_BT=torch.from_numpy(attention_mask_BT).to(device),
        word_of_token_BT=torch.from_numpy(word_of_token_BT).to(device),
        word_mask_BW=torch.from_numpy(word_mask_BW).to(device),
        label_B=torch.tensor([prompt.example.label for prompt in prompts], device=device),
        weight_B=torch.tensor(weights or [1.0] * len(prompts), dtype=torch.float32, device=device),
        review_key_B=torch.tensor([review_key(prompt.example.example_id) for prompt in prompts], device=device),
        prompts=tuple(prompts),
    )


def plan_epoch(lengths: Sequence[int], reviews_per_step: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The steps of an epoch as indices of reviews, each review once; one step is smaller where they don't divide.

    Reviews are shuffled, sorted by length within windows of 50 steps, cut into steps, and the steps are shuffled. A
    pure function of its arguments: no rank and no world size, so that a run continues alike on more or fewer devices.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths)).tolist()
    window = WINDOW_STEPS * reviews_per_step
    steps = []
    for first in range(0, len(order), window):
        inside = sorted(order[first : first + window], key=lambda index: lengths[index])
        steps += [inside[k : k + reviews_per_step] for k in range(0, len(inside), reviews_per_step)]
    return [steps[k] for k in rng.permutation(len(steps)).tolist()]


def share(
    step: Sequence[int], lengths: Sequence[int], *, world_size: int, rank: int, micro_batch_size: int
) -> list[list[tuple[int, float]]]:
    """This rank's micro-batches of a step, as (index of the review, weight).

    All ranks get equally many micro-batches with equally many rows, of nearly equal lengths. Where the reviews don't
    divide, the shortest one is repeated with weight 0. Over all ranks each review has weight 1 exactly once.
    """
    if not step:
        return []
    by_length = sorted(step, key=lambda index: (lengths[index], index))
    rows_per_rank = -(-len(step) // world_size)
    fillers = rows_per_rank * world_size - len(step)
    rows = [(by_length[0], 0.0)] * fillers + [(index, 1.0) for index in by_length]
    mine = rows[rank::world_size]
    parts = -(-rows_per_rank // micro_batch_size)
    cuts = [rows_per_rank * part // parts for part in range(parts + 1)]
    return [mine[start:end] for start, end in pairwise(cuts)]
