"""What the adversary sees of a view: detached numbers, comparable between the two views of a pair.

Nothing here may tell *which* words are hidden, else the adversary need not understand anything: the focus is cut to the
words visible in both views, renormalised, and sorted. Source: our choice (step 5 of the method).

Legend: B views (N pairs), D hidden size, C labels, W words, F features of one view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from afa_llm.errors import AfaError
from afa_llm.method.attention_readout import MASS_FLOOR, Focus
from afa_llm.method.reward import answer_shift
from afa_llm.records import DecoderReading

PROFILE = 5  # largest focus values that are shown, in order

# Fixed scales instead of running statistics, which would differ over ranks. Measured on synthetic pairs, 256 hidden
# numbers of noise beside them: after 8 rounds of 128 pairs a label shift of 0.5 nats is detected with an AUROC of 0.89
# (without gain 0.71), a focus shift of 0.05 with 0.68 (0.49); after 40 rounds with 0.92 (0.92) and 0.91 (0.62).
LABEL_GAIN, FOCUS_GAIN = 4.0, 10.0

SHIFTS = 3  # numbers of `shift`


@dataclass(frozen=True)
class FeaturePair:
    """Features of the clean and of the masked view of the same reviews. Producer: `pair_features`.

    Consumer: discriminator. Row n is one mask; both sides are detached float32 [N, F].
    """

    clean_NF: Tensor
    masked_NF: Tensor

    def select(self, rows: Tensor) -> FeaturePair:
        """The pairs at a bool mask or at indices."""
        return FeaturePair(self.clean_NF[rows], self.masked_NF[rows])

    def join(self, other: FeaturePair) -> FeaturePair:
        """These pairs, then the others."""
        clean, masked = (self.clean_NF, other.clean_NF), (self.masked_NF, other.masked_NF)
        return FeaturePair(torch.cat(clean), torch.cat(masked))


def feature_count(hidden_size: int, labels: int, features: Sequence[str]) -> int:
    """F: how many numbers `view_features` gives for one view."""
    sizes = {"hidden": hidden_size, "labels": labels + 2, "shift": SHIFTS, "focus": 3 + PROFILE}
    return sum(sizes[name] for name in _known(features))


def view_features(
    reading: DecoderReading,
    focus: Focus,
    visible_BW: Tensor,
    label_B: Tensor,
    features: Sequence[str],
    whole_BC: Tensor,
) -> Tensor:
    """Features [B, F] of one view, detached float32, in the order of `features`.

    `hidden`: last hidden state at the readout position, scaled to unit RMS. `labels`: log-probabilities normalised
    over the labels, the review's own label first (then those after it, around), and their entropy (nats), both times 4,
    and the log of their total probability. `shift`: how far the answers are from `whole_BC`, the labels'
    log-probabilities where nothing is hidden; see `_shift_profile`, times 4. `focus`: see
    `_focus_profile`, times 10; `visible_BW` are the words visible in *both* views of the pair. Raises AfaError for an
    unknown feature.
    """
    makers: dict[str, Callable[[], Tensor]] = {
        "hidden": lambda: _unit_rms(reading.hidden_BD),
        "labels": lambda: _label_profile(reading.label_logprob_BC, label_B),
        "shift": lambda: LABEL_GAIN * _shift_profile(reading.label_logprob_BC, whole_BC),
        "focus": lambda: FOCUS_GAIN * _focus_profile(focus.focus_BW, visible_BW),
    }
    return torch.cat([makers[name]().detach().float() for name in _known(features)], dim=-1)


def pair_features(
    clean: tuple[DecoderReading, Focus],
    masked: tuple[DecoderReading, Focus],
    visible_NW: Tensor,
    label_B: Tensor,
    features: Sequence[str],
    whole_BC: Tensor | None = None,
) -> FeaturePair:
    """Features of B clean views against N = B·K masked ones (row b·K + k belongs to review b, whose label is label_B).

    `visible_NW` is the masked views' word mask, which is what both views show. `whole_BC`: the labels'
    log-probabilities where nothing is hidden; none: those of `clean`. Raises AfaError where N is no multiple of B.
    """
    reviews, rows = clean[0].hidden_BD.shape[0], masked[0].hidden_BD.shape[0]
    if reviews == 0 or rows % reviews:
        raise AfaError(f"pair_features: {rows} masked views don't belong to {reviews} clean ones; wanted a multiple")
    reading, focus = _repeat(clean[0], clean[1], rows // reviews)
    label_N = label_B.repeat_interleave(rows // reviews)
    whole_BC = clean[0].label_logprob_BC if whole_BC is None else whole_BC
    whole_NC = whole_BC.repeat_interleave(rows // reviews, dim=0)
    return FeaturePair(
        clean_NF=view_features(reading, focus, visible_NW, label_N, features, whole_NC),
        masked_NF=view_features(masked[0], masked[1], visible_NW, label_N, features, whole_NC),
    )


def _repeat(reading: DecoderReading, focus: Focus, times: int) -> tuple[DecoderReading, Focus]:
    wide = DecoderReading(
        label_logprob_BC=reading.label_logprob_BC.repeat_interleave(times, dim=0),
        hidden_BD=reading.hidden_BD.repeat_interleave(times, dim=0),
        rows_LBHT=reading.rows_LBHT[:, :0],
    )
    return wide, Focus(**{name: tensor.repeat_interleave(times, dim=0) for name, tensor in vars(focus).items()})


def _unit_rms(hidden_BD: Tensor) -> Tensor:
    return functional.normalize(hidden_BD.float(), dim=-1) * hidden_BD.shape[-1] ** 0.5


def _label_profile(label_logprob_BC: Tensor, label_B: Tensor) -> Tensor:
    """Own label first: whether a view makes the *right* answer less likely is then one number, the same for all labels.

    In the order of the classes a small network would have to find out that a fall of one is a rise of the other, by
    label (planted reviews, NOTES.md).
    """
    logprob_BC = label_logprob_BC.float()
    classes = logprob_BC.shape[-1]
    order_BC = (label_B.to(logprob_BC.device)[:, None] + torch.arange(classes, device=logprob_BC.device)) % classes
    normal_BC = logprob_BC.log_softmax(-1).gather(-1, order_BC)
    entropy_B1 = torch.special.entr(normal_BC.exp()).sum(-1, keepdim=True)
    mass_B1 = logprob_BC.logsumexp(-1, keepdim=True)
    return torch.cat([LABEL_GAIN * normal_BC, LABEL_GAIN * entropy_B1, mass_B1], dim=-1)


def _shift_profile(label_logprob_BC: Tensor, whole_BC: Tensor) -> Tensor:
    """How far the answers moved, whichever way: `answer_shift` (nats), total variation, and the
    change of their entropy (nats), all without sign. Zero where nothing moved.
    """
    odds_B1 = answer_shift(whole_BC, label_logprob_BC[:, None])
    normal_BC = label_logprob_BC.float().log_softmax(-1)
    before_BC = whole_BC.float().to(normal_BC.device).log_softmax(-1)
    variation_B1 = (normal_BC.exp() - before_BC.exp()).abs().sum(-1, keepdim=True) / 2
    entropy_B1 = torch.special.entr(normal_BC.exp()).sum(-1, keepdim=True)
    before_B1 = torch.special.entr(before_BC.exp()).sum(-1, keepdim=True)
    return torch.cat([odds_B1, variation_B1, (entropy_B1 - before_B1).abs()], dim=-1)


def _focus_profile(focus_BW: Tensor, visible_BW: Tensor) -> Tensor:
    """Shape of the focus over the visible words: entropy / log count, largest, sum of squares, and the top values.

    Sorted values name no word, and the hidden words' own focus is gone before anything is computed. All in [0, 1].
    """
    shown_BW = torch.where(visible_BW, focus_BW.float(), 0.0)
    total_B1 = shown_BW.sum(-1, keepdim=True)
    shown_BW = shown_BW / torch.where(total_B1 > MASS_FLOOR, total_B1, 1.0)
    spread_B1 = visible_BW.sum(-1, keepdim=True).clamp_min(2).log()
    entropy_B1 = torch.special.entr(shown_BW).sum(-1, keepdim=True) / spread_B1
    top_BP = functional.pad(shown_BW, (0, PROFILE)).topk(PROFILE, dim=-1).values
    squares_B1 = shown_BW.square().sum(-1, keepdim=True)
    return torch.cat([entropy_B1, top_BP[:, :1], squares_B1, top_BP], dim=-1)


def _known(features: Sequence[str]) -> Sequence[str]:
    unknown = set(features) - {"hidden", "labels", "shift", "focus"}
    if unknown or not features:
        raise AfaError(f"adversary.features = {list(features)}: set one or more of hidden, labels, shift, focus")
    return features
