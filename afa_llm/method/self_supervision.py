"""The rival: progressive self-supervised attention supervision (Tang et al., ACL 2019), for a causal model's readout.

The paper's (its abstract was at hand; threshold and expected weights as we know its algorithm): round by round the
most attended word of a review is taken, if the attention is concentrated (entropy under a threshold). Where the answer
was right the word is *active*, where it was wrong it is *misleading*; it is masked, and the next round looks at what
is left. Training then adds γ times the squared distance of the attention on these words from what is expected of
them: 1/|active| on each active word, 0 on each misleading one.

Our adaptation: attention is the focus of the readout position over the review's words; a word is masked by blocking its
keys; the words are mined anew in each training round with the weights as they are. (The paper trains a model for each
round of mining on the masked corpus, then trains once more from the start with the sets fixed.)

Legend: B reviews, W words.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from afa_llm.method.policy_gradient import focus_entropy


@dataclass(frozen=True)
class MinedWords:
    """Words found so far, bool [B, W] each; no word is both."""

    active_BW: Tensor
    misleading_BW: Tensor

    @classmethod
    def none(cls, word_mask_BW: Tensor) -> MinedWords:
        nothing = torch.zeros_like(word_mask_BW)
        return cls(nothing, nothing)

    def together(self) -> Tensor:
        """Bool [B, W]: what has been masked so far."""
        return self.active_BW | self.misleading_BW


def mine(
    found: MinedWords, focus_BW: Tensor, log_focus_BW: Tensor, shown_BW: Tensor, right_B: Tensor, entropy_limit: float
) -> MinedWords:
    """One round: `found` with the most attended of the words still shown, in each review whose focus is concentrated.

    Focus of what is shown, 0 elsewhere; `right_B`: was the answer to what is shown right. Nothing is taken where the
    entropy (nats) is not under the limit, or where fewer than two words are left: one is always the most attended. The
    first of equals is taken. No gradient.
    """
    entropy_B = focus_entropy(focus_BW.detach(), log_focus_BW.detach(), shown_BW)
    taken_B = (entropy_B < entropy_limit) & (shown_BW.sum(-1) >= 2)
    best_B = focus_BW.detach().masked_fill(~shown_BW, -1.0).argmax(-1)
    word_BW = torch.nn.functional.one_hot(best_B, focus_BW.shape[1]).bool() & taken_B[:, None]
    return MinedWords(
        found.active_BW | (word_BW & right_B[:, None]), found.misleading_BW | (word_BW & ~right_B[:, None])
    )


def supervision_sum(focus_BW: Tensor, found: MinedWords, weight_B: Tensor) -> Tensor:
    """Scalar Σ weight · Σ_{mined words} (focus − expected)²; gradient in the focus. Expected as on top of this file."""
    active_B1 = found.active_BW.sum(-1, keepdim=True).clamp_min(1)
    expected_BW = found.active_BW.to(focus_BW) / active_B1
    distance_BW = torch.where(found.together(), focus_BW - expected_BW, 0.0).square()
    return (torch.where(weight_B > 0, distance_BW.sum(-1), 0.0) * weight_B.to(focus_BW)).sum()
