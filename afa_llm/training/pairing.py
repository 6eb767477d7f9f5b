"""What the adversary compares: each policy mask, and a random one, with the clean view or with the random one.

Legend: B reviews, W words, C labels, N = B·(K + 1) masked views, the random mask last in each review.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from afa_llm.method.attention_readout import Focus
from afa_llm.method.view_features import FeaturePair, pair_features
from afa_llm.records import DecoderReading

Seen = tuple[DecoderReading, Focus]


def compared_pairs(
    clean: Seen,
    masked: Seen,
    shown_NW: torch.Tensor,
    label_B: torch.Tensor,
    features: Sequence[str],
    *,
    against: str,
) -> tuple[FeaturePair, FeaturePair]:
    """Pairs of the policy's masks [B·K] and of the random ones [B]; `shown_NW`: the words that each view shows."""
    whole_BC = clean[0].label_logprob_BC
    index_BK = torch.arange(len(shown_NW), device=shown_NW.device).view(len(label_B), -1)
    random_B = index_BK[:, -1]
    if against == "random":
        clean = _rows(masked, random_B)
        shown_NW = shown_NW & shown_NW[random_B].repeat_interleave(index_BK.shape[1], dim=0)
    pairs = pair_features(clean, masked, shown_NW, label_B, features, whole_BC)
    at = pairs.clean_NF.device
    return pairs.select(index_BK[:, :-1].reshape(-1).to(at)), pairs.select(random_B.to(at))


def answers_alone(label_logprob_NC: torch.Tensor) -> Seen:
    """Views of which nothing is known but the labels' answers: an engine gives no more."""
    nothing_N0 = label_logprob_NC.new_zeros(len(label_logprob_NC), 0)
    reading = DecoderReading(label_logprob_NC, nothing_N0, nothing_N0[None, :, None])
    return reading, Focus(nothing_N0, nothing_N0, nothing_N0.sum(-1))


def _rows(views: Seen, rows_B: torch.Tensor) -> Seen:
    reading, focus = views
    chosen = DecoderReading(reading.label_logprob_BC[rows_B], reading.hidden_BD[rows_B], reading.rows_LBHT[:, rows_B])
    return chosen, Focus(**{name: tensor[rows_B] for name, tensor in vars(focus).items()})
