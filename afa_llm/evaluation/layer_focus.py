"""Which layers look at the words that decide? For `attention.layers`, and without annotations.

Every word is hidden by itself, and how far the answer moves then (the total variation distance of the labels' answers)
is what the word decides. The lift of a focus is how far the answer moves when a word drawn from it is hidden, against a
word drawn evenly: what a masking policy has to go by. In a large decoder most layers lift little (they spread over the
context), and a focus averaged over all of them says little. Kendall's τ was tried first and tells layers apart badly:
it is about the order of the many words that decide nothing. Source: our choice; leave-one-out as in Li, Monroe and
Jurafsky (2016, arXiv 1612.08220).

Legend: N reviews, L layers, W words of one review, C labels, Q queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score

from afa_llm.errors import AfaError
from afa_llm.evaluation.estimates import Floats
from afa_llm.evaluation.faithfulness import MaskedProbability
from afa_llm.evaluation.plausibility import decisive
from afa_llm.evaluation.word_frequencies import is_stop_word
from afa_llm.records import Example


@dataclass(frozen=True)
class BandFocus:
    """The mean focus of the layers `first` to `last`, both included: means over the reviews where each is defined (NaN
    where it is on none).

    `lift`: over all reviews together, so that those count whose answer moves. `auprc`: against the words that people
    marked. `stop_words`: share of the focus on function words.
    """

    first: int
    last: int
    lift: float
    auprc: float
    stop_words: float

    @property
    def depth(self) -> int:
        return self.last - self.first + 1


def answer_shifts(counts: Sequence[int], probability: MaskedProbability, most: int, seed: int) -> list[Floats]:
    """How far the answer moves when a word is hidden, [W] for each review of `counts` words: the total variation
    distance of the label distributions, in [0, 1]. Of a review of more than `most` words so many are asked about, drawn
    evenly; the others are NaN. Raises AfaError where answers are not numbers."""
    draw = np.random.default_rng(seed)
    asked_N = [np.sort(draw.permutation(count)[:most]) for count in counts]
    queries = [(n, frozenset(words)) for n, asked in enumerate(asked_N) for words in [[], *([int(w)] for w in asked)]]
    logprob_QC = probability([n for n, _ in queries], [hidden for _, hidden in queries])
    if np.isnan(logprob_QC).any():
        raise AfaError("the model's answers are not numbers; its weights may hold NaN: name others")
    share_QC = np.exp(logprob_QC - np.logaddexp.reduce(logprob_QC, axis=1, keepdims=True))
    found, start = [], 0
    for count, asked in zip(counts, asked_N, strict=True):
        shift_W = np.full(count, np.nan)
        shift_W[asked] = np.abs(share_QC[start + 1 : start + 1 + len(asked)] - share_QC[start]).sum(1) / 2
        found.append(shift_W)
        start += 1 + len(asked)
    return found


def band_focus(
    examples: Sequence[Example], focus_NLW: Sequence[Floats], shift_NW: Sequence[Floats], first: int, last: int
) -> BandFocus:
    """One band, judged on these reviews."""
    auprc, stop_words = [], []
    for example, focus_LW in zip(examples, focus_NLW, strict=True):
        focus_W = _of_band(focus_LW, first, last)
        marked_W = decisive(example)
        if marked_W is not None:
            auprc.append(float(average_precision_score(marked_W, focus_W)))
        common_W = [is_stop_word(example.text[start:end]) for start, end in example.words]
        stop_words.append(float(focus_W[common_W].sum()))
    return BandFocus(first, last, _lift(focus_NLW, shift_NW, first, last), _mean(auprc), _mean(stop_words))


def best_band(
    examples: Sequence[Example], focus_NLW: Sequence[Floats], shift_NW: Sequence[Floats]
) -> tuple[BandFocus, float]:
    """The run of layers to steer, on all reviews, and the lift that such a choice has on reviews it was not made on:
    chosen on every second one and judged on the others, and the other way round.

    The run with the most lift above half height, summed over its layers: as many layers as possible, since more are
    more to steer, but few that know nothing. Half height is half way from 1 to the mean of the best quarter of the
    layers; measured from the highest alone it is a matter of luck (NOTES.md). NaN lifts where no answer moves.
    """
    drawn = even = 0.0
    for chosen_on, judged_on in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        run = _best_run(focus_NLW[chosen_on], shift_NW[chosen_on])
        parts = _drawn_and_even(focus_NLW[judged_on], shift_NW[judged_on], *run)
        drawn, even = drawn + parts[0], even + parts[1]
    elsewhere = drawn / even if even > 0 else math.nan
    return band_focus(examples, focus_NLW, shift_NW, *_best_run(focus_NLW, shift_NW)), elsewhere


def agreement(focus_NLW: Sequence[Floats], shift_NW: Sequence[Floats], draws: int = 300, seed: int = 0) -> float:
    """How steady the choice of `best_band` is: over sets of as many reviews, drawn from these with replacement, the
    mean share of layers that its run and theirs have in common, of those that are in either (Jaccard), in [0, 1].

    Bootstrap (Efron 1979); the measure is our choice. Draws in which no answer moves are left out; NaN without any.
    """
    depth, draw = len(focus_NLW[0]), np.random.default_rng(seed)
    if not np.nansum([np.nansum(shift_W) for shift_W in shift_NW]) > 0:
        return math.nan
    parts = [_drawn_and_even_by_review(focus_NLW, shift_NW, layer, layer) for layer in range(depth)]
    drawn_LN, even_N = np.stack([drawn_N for drawn_N, _ in parts]), parts[0][1]
    chosen, shared = set(_layers(_run_above_half_height(_lifts(drawn_LN, even_N)))), []
    for _ in range(draws):
        picked = draw.integers(len(even_N), size=len(even_N))
        if even_N[picked].sum() > 0:
            other = set(_layers(_run_above_half_height(_lifts(drawn_LN[:, picked], even_N[picked]))))
            shared.append(len(chosen & other) / len(chosen | other))
    return float(np.mean(shared)) if shared else math.nan


def _best_run(focus_NLW: Sequence[Floats], shift_NW: Sequence[Floats]) -> tuple[int, int]:
    lifts = [_lift(focus_NLW, shift_NW, layer, layer) for layer in range(len(focus_NLW[0]))]
    return _run_above_half_height(np.asarray(lifts))


def _run_above_half_height(lift_L: Floats) -> tuple[int, int]:
    best_quarter = np.sort(lift_L)[-max(1, len(lift_L) // 4) :]
    above_L = lift_L - (1 + best_quarter.mean()) / 2
    runs = [(first, last) for first in range(len(lift_L)) for last in range(first, len(lift_L))]
    return max(runs, key=lambda run: float(above_L[run[0] : run[1] + 1].sum()))


def _layers(run: tuple[int, int]) -> range:
    return range(run[0], run[1] + 1)


def _lifts(drawn_LN: Floats, even_N: Floats) -> Floats:
    lift_L: Floats = drawn_LN.sum(1) / even_N.sum()
    return lift_L


def _lift(focus_NLW: Sequence[Floats], shift_NW: Sequence[Floats], first: int, last: int) -> float:
    drawn, even = _drawn_and_even(focus_NLW, shift_NW, first, last)
    return drawn / even if even > 0 else math.nan


def _drawn_and_even(
    focus_NLW: Sequence[Floats], shift_NW: Sequence[Floats], first: int, last: int
) -> tuple[float, float]:
    """Sums over reviews of `_drawn_and_even_by_review`."""
    drawn_N, even_N = _drawn_and_even_by_review(focus_NLW, shift_NW, first, last)
    return float(drawn_N.sum()), float(even_N.sum())


def _drawn_and_even_by_review(
    focus_NLW: Sequence[Floats], shift_NW: Sequence[Floats], first: int, last: int
) -> tuple[Floats, Floats]:
    """The mean shift of a word drawn from the band's focus, and of one drawn evenly, [N] each. Where not every word
    was asked about, those that were stand for all."""
    drawn, even = [], []
    for focus_LW, shift_W in zip(focus_NLW, shift_NW, strict=True):
        part_W = np.nan_to_num(_of_band(focus_LW, first, last) * shift_W)
        drawn.append(float(part_W.sum() * len(shift_W) / np.isfinite(shift_W).sum()))
        even.append(float(np.nanmean(shift_W)))
    return np.array(drawn), np.array(even)


def _of_band(focus_LW: Floats, first: int, last: int) -> Floats:
    focus_W: Floats = focus_LW[first : last + 1].mean(0)
    return focus_W


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
