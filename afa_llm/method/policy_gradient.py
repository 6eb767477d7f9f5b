"""The terms of the objective, each as a *sum* over its items: the caller divides by global counts.

So world size, micro-batches and accumulation leave the gradient as it is. Non-finite values are passed on, never
hidden: the trainer must see them before its optimizer does.

Policy gradient: REINFORCE with the leave-one-out baseline (Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline
for free"; RLOO, arXiv 2402.14740). The paper says "a policy gradient approach"; which one is our choice.

Legend: B reviews, K masks per review, W words, C labels, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from afa_llm.errors import AfaError

MASS_MARGIN = 1e-6
"""A mass nearer to 0 or 1 counts as this near: its logarithm stays finite."""


def leave_one_out(reward_BK: Tensor, face_K: Tensor) -> Tensor:
    """Advantages [B, K]: each reward minus the mean of the *other* masks of the same review and face.

    That is K_f/(K_f - 1) · (R_k - mean_f R). The baseline does not depend on mask k, so the estimate stays unbiased.
    Raises AfaError where a face has a single mask.
    """
    same_KK = _same_face(face_K, reward_BK)
    size_K = same_KK.sum(-1)
    if bool((size_K < 2).any()):
        raise AfaError(
            f"masking.masks_per_review = {len(face_K)}: the leave-one-out baseline needs two masks of each face; "
            "set at least 2, or 4 with direction both"
        )
    # R_k - (Σ others)/(K_f - 1) in one product; the differences are exact where all rewards are equal.
    difference_BKK = reward_BK.detach()[:, :, None] - reward_BK.detach()[:, None, :]
    return torch.where(same_KK > 0, difference_BKK, 0.0).sum(-1) / (size_K - 1)


def kept_groups(reward_BK: Tensor, face_K: Tensor, floor: float, valid_B: Tensor) -> Tensor:
    """Which masks teach, bool [B, K]: those whose (review, face) group has a reward std above `floor`, in real reviews.

    Population standard deviation. The rest is left out of the denominator too. Groups with non-finite rewards are kept,
    so that they show. Skipping instead of dividing by a tiny deviation is our choice.
    """
    same_KK = _same_face(face_K, reward_BK)
    reward_BKK = torch.where(same_KK > 0, reward_BK.detach()[:, None, :], 0.0)
    mean_BK = reward_BKK.sum(-1) / same_KK.sum(-1)
    spread_BKK = torch.where(same_KK > 0, reward_BKK - mean_BK[:, :, None], 0.0)
    deviation_BK = (spread_BKK.square().sum(-1) / same_KK.sum(-1)).sqrt()
    return ~(deviation_BK <= floor) & (valid_B > 0).to(reward_BK.device)[:, None]


def squares_sum(advantage_BK: Tensor, kept_BK: Tensor, weight_B: Tensor) -> Tensor:
    """Scalar Σ advantage² over the kept masks: over their global number, the mean square of the round's advantages."""
    kept_BK = kept_BK & (weight_B > 0).to(kept_BK.device)[:, None]
    return torch.where(kept_BK, advantage_BK.detach().square(), 0.0).sum()


def policy_gradient_sum(log_prob_BK: Tensor, advantage_BK: Tensor, kept_BK: Tensor, weight_B: Tensor) -> Tensor:
    """Scalar -Σ weight · advantage · log π over the kept masks. Divide by the global number of kept masks.

    Its gradient is minus the score-function estimate (Williams 1992) of the gradient of the expected reward.
    """
    kept_BK = kept_BK & (weight_B > 0).to(kept_BK.device)[:, None]
    # Both factors are masked: in backward 0 · NaN of a mask that was left out would be NaN.
    advantage_BK = torch.where(kept_BK, advantage_BK.detach(), 0.0)
    log_prob_BK = torch.where(kept_BK, log_prob_BK, 0.0)
    return -(weight_B.to(log_prob_BK)[:, None] * advantage_BK * log_prob_BK).sum()


def focus_entropy(focus_BW: Tensor, log_focus_BW: Tensor, word_mask_BW: Tensor) -> Tensor:
    """Entropy of the focus, [B], in nats: between 0 and log W."""
    return -torch.where(word_mask_BW, focus_BW * log_focus_BW, 0.0).sum(-1)


def entropy_sum(focus_BW: Tensor, log_focus_BW: Tensor, word_mask_BW: Tensor, weight_B: Tensor) -> Tensor:
    """Scalar Σ weight · entropy, in nats. The objective subtracts it: β rewards a spread focus."""
    return _weighted_sum(focus_entropy(focus_BW, log_focus_BW, word_mask_BW), weight_B)


def kl_sum(base_logprob_BV: Tensor, tuned_logprob_BV: Tensor, weight_B: Tensor) -> Tensor:
    """Scalar Σ weight · KL(base ‖ tuned) of the next token, in nats; gradient in the tuned side only.

    Tokens that the base gives probability 0 (-inf) contribute 0, by the definition of KL. Where the tuned side has
    probability 0 and the base has not, the result is infinite, as it is.
    """
    base_BV = base_logprob_BV.detach().to(torch.promote_types(base_logprob_BV.dtype, torch.float32))
    tuned_BV = tuned_logprob_BV.to(base_BV.dtype)
    possible_BV = ~base_BV.isneginf()
    gap_BV = torch.where(possible_BV, base_BV, 0.0) - torch.where(possible_BV, tuned_BV, 0.0)
    return _weighted_sum((base_BV.exp() * gap_BV).sum(-1), weight_B)


def mass_kl_sum(base_mass_B: Tensor, tuned_mass_B: Tensor, weight_B: Tensor) -> Tensor:
    """Scalar Σ weight · KL(base ‖ tuned) of an attention's split into words and all else, in nats.

    Gradient in the tuned side only. A mass is the share of the readout's attention on the review's words, in [0, 1]
    (`Focus.word_mass_B`). The policy gradient turns the attention *among* words and has no say in how much of it they
    get; but its steps move weights that both share, and an LLM whose attention sink is drained answers by chance. The
    divergence is flat near the base, where tuning moves it anyway, and steep far away. Source: our choice.
    """
    base_B = base_mass_B.detach().to(torch.promote_types(base_mass_B.dtype, torch.float32))
    base_B = base_B.clamp(0, 1)  # a sum of softmax numbers may round to a little more than 1
    tuned_B = tuned_mass_B.to(base_B.dtype).clamp(MASS_MARGIN, 1 - MASS_MARGIN)
    cross_B = base_B * tuned_B.log() + (1 - base_B) * (1 - tuned_B).log()
    own_B = torch.special.xlogy(base_B, base_B) + torch.special.xlogy(1 - base_B, 1 - base_B)
    return _weighted_sum(own_B - cross_B, weight_B)


def task_loss_sum(label_logprob_BC: Tensor, label_B: Tensor, weight_B: Tensor, scope: str) -> Tensor:
    """Scalar Σ weight · cross-entropy of the right answer, in nats.

    `labels`: the answers of the labels renormalised among themselves; `vocabulary`: as they are. Raises AfaError for
    another scope.
    """
    if scope not in ("labels", "vocabulary"):
        raise AfaError(f"objective.task_scope = {scope!r}: not known; set labels or vocabulary")
    logprob_BC = label_logprob_BC.to(torch.promote_types(label_logprob_BC.dtype, torch.float32))
    if scope == "labels":
        logprob_BC = logprob_BC.log_softmax(-1)
    return _weighted_sum(-logprob_BC.gather(-1, label_B[:, None]).squeeze(-1), weight_B)


def _same_face(face_K: Tensor, like: Tensor) -> Tensor:
    return (face_K[:, None] == face_K[None, :]).to(like.device)


def _weighted_sum(value_B: Tensor, weight_B: Tensor) -> Tensor:
    """Filler rows (weight 0) are cut out, not multiplied by 0, so that nothing non-finite leaks out of them."""
    return (torch.where(weight_B > 0, value_B, 0.0) * weight_B.to(value_B)).sum()
