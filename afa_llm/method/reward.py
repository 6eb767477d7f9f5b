"""What a mask earns. Rewards are data: no graph goes through them.

The paper's two roles are one sign: an `unattended` mask wants to deceive the adversary, an `attended` one to be
detected. The logarithms and the label-aware part are our choice.

Legend: B reviews, K masks per review, W words, C labels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from afa_llm.errors import AfaError

LEAST_RARITY = 0.02


def adversarial_reward(logit_BK: Tensor, face_K: Tensor) -> Tensor:
    """[B, K]: attended log P_detect, unattended log(1 - P_detect), P_detect = σ(logit).

    Random masks are scored as attended; nothing is learned from it, for their log-probability has no gradient.
    """
    return functional.logsigmoid(_sign(face_K, logit_BK) * _data(logit_BK))


def label_drop(clean_logprob_BC: Tensor, masked_logprob_BKC: Tensor, label_B: Tensor) -> Tensor:
    """[B, K]: log p(y|x) - log p(y|x̃) in nats, each normalised over the labels' answers. Positive: hiding hurt."""
    label_B1 = label_B[:, None].to(clean_logprob_BC.device)
    clean_B1 = _data(clean_logprob_BC).log_softmax(-1).gather(-1, label_B1)
    masked_BKC = _data(masked_logprob_BKC).log_softmax(-1)
    index_BK1 = label_B1[:, None].expand(-1, masked_BKC.shape[1], -1).to(masked_BKC.device)
    return clean_B1.to(masked_BKC.device) - masked_BKC.gather(-1, index_BK1).squeeze(-1)


def answer_shift(clean_logprob_BC: Tensor, masked_logprob_BKC: Tensor) -> Tensor:
    """[B, K]: how far a mask moves the answers, whichever way: root mean square over the labels of the change of their
    log-probability, each change less the labels' mean, in nats. With two labels half of what the log-odds move.

    No label is asked for. A word that speaks against the label counts as one that speaks for it does: a fall of
    log p(y) would punish looking at it, and with it looking at the same word in reviews where it is right. Source: our
    choice, for the "differences induced by these masks" of the paper.
    """
    change_BKC = _data(masked_logprob_BKC) - _data(clean_logprob_BC)[:, None].to(masked_logprob_BKC.device)
    centred_BKC = change_BKC - change_BKC.mean(-1, keepdim=True)
    return centred_BKC.square().mean(-1).sqrt()


def combine(adversarial_BK: Tensor, drop_BK: Tensor, face_K: Tensor, label_weight: float) -> Tensor:
    """[B, K]: adversarial + η·drop for attended (hiding what it looks at must hurt), - η·drop for unattended masks."""
    return _data(adversarial_BK) + label_weight * by_face(drop_BK, face_K)


def by_face(found_BK: Tensor, face_K: Tensor) -> Tensor:
    """[B, K]: what a mask found, earned by attended masks and paid by unattended ones."""
    return _sign(face_K, found_BK) * _data(found_BK)


def mean_hidden(hidden_BKW: Tensor, value_BW: Tensor) -> Tensor:
    """[B, K]: mean of a number per word over the words that a mask hides; 0 for an empty mask.

    Of how decisive annotators call them (0..1): a control, what a judge finds who knows the right words. Of their
    rarity (0..1): a control too, what counting words finds without a judge. Source: our choice.
    """
    hidden_BKW = hidden_BKW.float()
    return (hidden_BKW * _data(value_BW)[:, None]).sum(-1) / hidden_BKW.sum(-1).clamp(min=1)


def for_rare(found_BK: Tensor, rarity_BK: Tensor, power: float) -> Tensor:
    """[B, K]: what masks found, times the mean rarity (0..1) of the words they hide to this power.

    Of two masks that move the answers alike, the one of rarer words earns more. Source: our choice, after the paper's
    complaint that attention stays with common words and overlooks the rarer ones that decide.
    """
    return _data(found_BK) * _data(rarity_BK).pow(power)


def detected_for_rare(log_BK: Tensor, rarity_BK: Tensor, face_K: Tensor, power: float) -> Tensor:
    """[B, K]: the same of logarithms, log P(detected) + power · log rarity; unattended masks pay the second term.

    Rarities under LEAST_RARITY count as that: a mask of nothing but punctuation would earn minus infinity.
    """
    return _data(log_BK) + power * by_face(_data(rarity_BK).clamp(min=LEAST_RARITY).log(), face_K)


def shuffle(reward_BK: Tensor, face_K: Tensor, noise_BK: Tensor, valid_B: Tensor | None = None) -> Tensor:
    """Control: rewards permuted over all masks of the round that have the same face, over reviews and masks.

    The permutation is the order of `noise_BK` (any continuous noise). Rows with `valid_B` 0 (fillers) keep their own.
    Each face keeps its multiset of rewards, so mean and spread are untouched; only the tie to the mask is cut.
    """
    if noise_BK.shape != reward_BK.shape:
        raise AfaError(f"shuffle: noise {tuple(noise_BK.shape)} and rewards {tuple(reward_BK.shape)} differ in shape")
    shuffled = _data(reward_BK).clone()
    valid_BK = torch.ones_like(reward_BK, dtype=torch.bool) if valid_B is None else _rows(valid_B, reward_BK)
    for face in face_K.unique().tolist():
        among_BK = valid_BK & (face_K == face).to(reward_BK.device)[None, :]
        order = noise_BK.to(reward_BK.device)[among_BK].argsort(stable=True)
        shuffled[among_BK] = shuffled[among_BK][order]
    return shuffled


def _data(values: Tensor) -> Tensor:
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))


def _sign(face_K: Tensor, like: Tensor) -> Tensor:
    return torch.where(face_K < 0, -1.0, 1.0).to(like.device)


def _rows(valid_B: Tensor, like_BK: Tensor) -> Tensor:
    return (valid_B > 0).to(like_BK.device)[:, None].expand_as(like_BK)
