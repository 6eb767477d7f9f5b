"""The focus: how the readout position spreads its attention over the words of the review.

Step 2 of the method. The choice of row, the mean over heads and layers, and the renormalisation are ours.

Legend: B reviews, T tokens, W words, L captured layers, H query heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from afa_llm.errors import AfaError

# Smallest focus whose logarithm is taken. log(1e-12) = -27.6: 500 million times below a uniform focus over 2000
# words, so it is met only by words whose attention underflowed. The gradient of the log is at most 1e12 and stays
# finite.
FOCUS_FLOOR = 1e-12

# Below this raw mass on all words together nothing can be read; the focus is zero instead of a quotient of rounding
# errors.
MASS_FLOOR = 1e-20

# log focus where no word stands: finite, so that 0 · value is 0 and not NaN, and far below log(FOCUS_FLOOR).
NON_WORD_LOG_FOCUS = -1e9


@dataclass(frozen=True)
class Focus:
    """Where the readout position looks. Producer: `read_focus`. Consumers: masking_policy, view_features, training.

    `focus_BW` is 0 on non-words and sums to 1 (to 0 where nothing is eligible or the words' raw mass is under 1e-20).
    `log_focus_BW` is log(max(focus, 1e-12)) on words and -1e9 elsewhere. `word_mass_B` is the attention on eligible
    words before renormalising, in [0, 1].
    """

    focus_BW: Tensor
    log_focus_BW: Tensor
    word_mass_B: Tensor


def read_focus(rows_LBHT: Tensor, word_of_token_BT: Tensor, word_mask_BW: Tensor) -> Focus:
    """The focus from the attention rows of the readout position; differentiable in the rows.

    Rows are averaged over layers and heads and summed over each word's tokens, in float32 (float64 rows stay float64).
    A word at the floor gets no gradient through its logarithm; float16 rows can be read, but their gradient may
    overflow below a focus of about 1e-5, so train with bfloat16 or float32 rows.

    Raises AfaError where the shapes don't belong together. Source: our choice.
    """
    _check_shapes(rows_LBHT, word_of_token_BT, word_mask_BW)
    row_BT = rows_LBHT.mean(dim=(0, 2), dtype=torch.promote_types(rows_LBHT.dtype, torch.float32))
    mass_BW = _sum_over_tokens(row_BT, word_of_token_BT, word_mask_BW.shape[1])
    mass_BW = torch.where(word_mask_BW, mass_BW, 0.0)
    word_mass_B = mass_BW.sum(-1)
    unreadable_B1 = (word_mass_B <= MASS_FLOOR)[:, None]
    focus_BW = torch.where(unreadable_B1, 0.0, mass_BW) / torch.where(unreadable_B1, 1.0, word_mass_B[:, None])
    log_focus_BW = torch.where(word_mask_BW, focus_BW.clamp_min(FOCUS_FLOOR).log(), NON_WORD_LOG_FOCUS)
    return Focus(focus_BW, log_focus_BW, word_mass_B)


def sink_mass(rows_LBHT: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """Mean attention [B] of the readout position on the first real token (the attention sink); no gradient.

    0 for a row without real tokens. It is logged, never penalised; `mass_kl_sum` holds what the words take.
    Source: our choice.
    """
    real_BT = attention_mask_BT.bool()
    first_BT = real_BT & (real_BT.long().cumsum(-1) == 1)
    rows_BT = rows_LBHT.detach().mean(dim=(0, 2), dtype=torch.promote_types(rows_LBHT.dtype, torch.float32))
    return torch.where(first_BT, rows_BT, 0.0).sum(-1)


def out_of_reach(layers: Sequence[int] | None = None) -> str:
    """The message for a focus that is zero on every word: there is nothing to move."""
    where = f"in layers {list(layers)}" if layers else "in the layers that are read"
    return (
        f"attention.layers: the readout position sees no word of the review {where}, as where their sliding window is "
        "shorter than the template's text after {review}; name layers that see the whole prompt, or shorten that text"
    )


def _sum_over_tokens(row_BT: Tensor, word_of_token_BT: Tensor, words: int) -> Tensor:
    """Sum over each word's tokens, [B, words]. Tokens of no word (-1) fall into a slot that is cut off."""
    slots = row_BT.new_zeros(row_BT.shape[0], words + 1)
    return slots.scatter_add(1, word_of_token_BT.long() + 1, row_BT)[:, 1:]


def _check_shapes(rows_LBHT: Tensor, word_of_token_BT: Tensor, word_mask_BW: Tensor) -> None:
    rows, tokens, words = tuple(rows_LBHT.shape), tuple(word_of_token_BT.shape), tuple(word_mask_BW.shape)
    if len(rows) != 4 or 0 in (rows[0], rows[2]):
        raise AfaError(
            f"read_focus: attention rows have shape {rows}, wanted [layers, reviews, heads, tokens] with at least one "
            "layer and head; set attention.layers to layers that the decoder has"
        )
    if (rows[1], rows[3]) != tokens or words[0] != rows[1]:
        raise AfaError(
            f"read_focus: rows {rows} [layers, reviews, heads, tokens], word_of_token {tokens} [reviews, tokens] and "
            f"word_mask {words} [reviews, words] don't belong to one view"
        )
