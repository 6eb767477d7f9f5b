"""Small batches and attention rows for the tests of the method room.

Legend: B reviews, T tokens, W words, L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from afa_llm.records import Batch, Example, Prompt

BOS, PREFIX, SUFFIX = 1, (2, 3), (4, 5)


def prompt(word_lengths: Sequence[int], first_id: int = 10, label: int = 0) -> Prompt:
    """BOS, a prefix, words of so many tokens each, a suffix whose last token is the readout position."""
    ids, words = [BOS, *PREFIX], [-1] * 3
    for word, length in enumerate(word_lengths):
        ids += range(first_id, first_id + length)
        words += [word] * length
        first_id += length
    spans = tuple((2 * i, 2 * i + 1) for i in range(len(word_lengths)))
    example = Example("x", "w " * len(word_lengths), label, spans)
    return Prompt(example, (*ids, *SUFFIX), (*words, -1, -1))


def make_batch(prompts: Sequence[Prompt], *, extra_tokens: int = 0, extra_words: int = 0) -> Batch:
    """Left-padded, with padding beyond the need where asked. Review keys are the prompts' first word ids."""
    tokens = max(len(p.token_ids) for p in prompts) + extra_tokens
    words = max(len(p.words) for p in prompts) + extra_words
    left = [tokens - len(p.token_ids) for p in prompts]
    return Batch(
        input_ids_BT=torch.tensor([[0] * n + list(p.token_ids) for n, p in zip(left, prompts, strict=True)]),
        attention_mask_BT=torch.tensor([[0] * n + [1] * len(p.token_ids) for n, p in zip(left, prompts, strict=True)]),
        word_of_token_BT=torch.tensor([[-1] * n + list(p.word_of_token) for n, p in zip(left, prompts, strict=True)]),
        word_mask_BW=torch.tensor(
            [[w < len(p.words) for w in range(words)] for p in prompts], dtype=torch.bool
        ).reshape(len(prompts), words),
        label_B=torch.tensor([p.example.label for p in prompts]),
        weight_B=torch.ones(len(prompts)),
        review_key_B=torch.tensor([p.token_ids[3] * 7_000_000_007 for p in prompts]),
        prompts=tuple(prompts),
    )


def attention_rows(batch: Batch, layers: int = 2, heads: int = 3) -> Tensor:
    """Softmax rows [L, B, H, T] that depend on the token id and its place before the end alone, so on no padding."""
    tokens = batch.input_ids_BT.shape[1]
    from_end_T = torch.arange(tokens).flip(0)
    seed_LH = torch.arange(1, layers * heads + 1).reshape(layers, 1, heads, 1)
    logit = torch.sin(batch.input_ids_BT[None, :, None] * 1.7 * seed_LH + from_end_T * 0.9) * 2
    return logit.masked_fill(batch.attention_mask_BT[None, :, None] == 0, -torch.inf).softmax(-1)
