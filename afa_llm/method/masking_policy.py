"""The masking policy: which words a mask hides, and with what probability.

"A dynamic masking strategy that attempts to mask various words to deceive a discriminator" is the paper's; the
distribution is ours: Plackett-Luce over scores ± log focus / temperature, drawn by Gumbel top-k
(Kool et al. 2019, arXiv 1903.06059; the score-function use follows Kool et al. 2020, arXiv 2002.06043).

Legend: B reviews, K masks per review, W words, N largest number of words that one mask hides.
"""

from __future__ import annotations

import torch
from torch import Tensor

from afa_llm.errors import AfaError
from afa_llm.records import MaskSample

ATTENDED, UNATTENDED, RANDOM = 1, -1, 0

# Stands for log 0. Finite, so that no backward has to take -inf from -inf; exp(-1e30 - s) is 0 exactly.
_LOG_ZERO = -1e30


def faces(direction: str, masks: int) -> Tensor:
    """Face of each mask, [K] int64: +1 attended, -1 unattended, 0 random. `both`: first half +1, second half -1.

    Raises AfaError for an unknown direction, no masks, or an odd number with `both`.
    """
    signs = {"attended": (ATTENDED,), "unattended": (UNATTENDED,), "random": (RANDOM,), "both": (ATTENDED, UNATTENDED)}
    if direction not in signs:
        raise AfaError(f"masking.direction = {direction!r}: not known; set one of {', '.join(signs)}")
    if masks < 1 or masks % len(signs[direction]):
        wanted = "an even number" if direction == "both" else "1 or more"
        raise AfaError(f"masking.masks_per_review = {masks}: direction {direction} needs {wanted}")
    return torch.tensor(signs[direction]).repeat_interleave(masks // len(signs[direction]))


def mask_counts(word_mask_BW: Tensor, rate: float) -> Tensor:
    """How many words one mask hides, [B] int64: ceil(rate · W), between 1 and W - 1; 0 where W < 2.

    At least one word stays, because a view with nothing left tests nothing (our choice). Products within 1e-9 of a
    whole number count as that number: 0.2 · 5 hides 1 word and 0.1 · 30 hides 3. Raises AfaError unless 0 < rate < 1.
    """
    if not 0 < rate < 1:
        raise AfaError(f"masking.rate = {rate}: a share of words lies between 0 and 1; set for instance 0.2")
    words_B = word_mask_BW.sum(-1)
    wanted_B = (words_B.double() * rate - 1e-9).ceil().long().clamp_min(1)
    return torch.minimum(wanted_B, words_B - 1).clamp_min(0)


def mask_scores(log_focus_BW: Tensor, face_K: Tensor, temperature: float) -> Tensor:
    """Scores of the draws, [B, K, W]: face · log focus / temperature; at least float32.

    Entries of non-words mean nothing: whoever uses the scores masks them. A random face scores 0 everywhere, without
    gradient. Raises AfaError unless temperature > 0.
    """
    if not temperature > 0:
        raise AfaError(f"masking.temperature = {temperature}: must be above 0; set for instance 1.0")
    log_focus = log_focus_BW.to(torch.promote_types(log_focus_BW.dtype, torch.float32))
    return face_K.to(log_focus)[None, :, None] * log_focus[:, None, :] / temperature


def sample_masks(
    log_focus_BW: Tensor,
    word_mask_BW: Tensor,
    count_B: Tensor,
    face_K: Tensor,
    temperature: float,
    gumbel_BKW: Tensor,
) -> MaskSample:
    """Ordered draws of words without replacement, and their log-probability.

    The `count_B` largest of scores + Gumbel noise, in order, are Plackett-Luce draws (Gumbel top-k). The noise comes
    in, so that the same noise gives the same masks in any layout. Ties fall to the earlier word. One sort:
    O(B·K·W·log W). Raises AfaError where the noise has another shape than [B, K, W].
    """
    shape = (log_focus_BW.shape[0], len(face_K), log_focus_BW.shape[1])
    if tuple(gumbel_BKW.shape) != shape:
        raise AfaError(
            f"sample_masks: noise has shape {tuple(gumbel_BKW.shape)}, wanted {shape} [reviews, masks, words]"
        )
    scores = mask_scores(log_focus_BW, face_K.to(log_focus_BW.device), temperature)
    order_BKN = _largest_first(scores.detach() + gumbel_BKW.to(scores), word_mask_BW, count_B)
    return MaskSample(
        order_BKN=order_BKN,
        hidden_BKW=hidden_words(order_BKN, shape[2]),
        log_prob_BK=log_prob(order_BKN, scores, word_mask_BW),
        face_K=face_K,
    )


def log_prob(order_BKN: Tensor, scores_BKW: Tensor, word_mask_BW: Tensor) -> Tensor:
    """log π of ordered draws without replacement, [B, K]: Σ_i [ s_{m_i} - logsumexp_{j ∉ m_<i} s_j ] (Plackett-Luce).

    `order_BKN` holds distinct words, -1 past a review's own count (contributes 0). Differentiable in the scores.

    What remains before draw i is the words drawn at i or later plus those never drawn. So one masked logsumexp over the
    never-drawn words, then a logcumsumexp over the draws from last to first, give all N denominators: exact, no
    subtraction of probabilities, O(B·K·(W + N)) time and memory, no loop.
    """
    drawn_BKN = order_BKN >= 0
    score_BKN = torch.where(drawn_BKN, scores_BKW.gather(2, order_BKN.clamp_min(0)), _LOG_ZERO)
    never_BKW = word_mask_BW[:, None, :] & ~hidden_words(order_BKN, scores_BKW.shape[2])
    rest_BK1 = torch.where(never_BKW, scores_BKW, _LOG_ZERO).logsumexp(-1, keepdim=True)
    from_last = torch.cat([rest_BK1, score_BKN.flip(-1)], dim=-1).logcumsumexp(-1)
    remaining_BKN = from_last[..., 1:].flip(-1)
    return torch.where(drawn_BKN, score_BKN - remaining_BKN, 0.0).sum(-1)


def hidden_words(order_BKN: Tensor, words: int) -> Tensor:
    """The drawn words as a set: bool [B, K, words]. Entries of -1 name no word."""
    slots = torch.zeros(*order_BKN.shape[:2], words + 1, dtype=torch.bool, device=order_BKN.device)
    return slots.scatter(2, order_BKN + 1, True)[..., 1:]


def _largest_first(key_BKW: Tensor, word_mask_BW: Tensor, count_B: Tensor) -> Tensor:
    """Indices of the count_B largest keys among words, largest first, [B, K, N = max count]; -1 past the count."""
    draws = max(count_B.tolist(), default=0)
    masked = key_BKW.masked_fill(~word_mask_BW[:, None, :], float("-inf"))
    order = masked.argsort(dim=-1, descending=True, stable=True)[..., :draws]
    past_B1N = torch.arange(draws, device=order.device) >= count_B.to(order.device)[:, None, None]
    return order.masked_fill(past_B1N, -1)
