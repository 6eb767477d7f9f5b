"""Focus quality: is the focus faithful to the model, plausible to people, and on which kinds of words does it lie?

Legend: N reviews, W words of one review, C labels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.metrics import average_precision_score

from afa_llm.data.word_forms import is_punctuation
from afa_llm.errors import AfaError
from afa_llm.evaluation.clusters import cluster_mean
from afa_llm.evaluation.estimates import Estimate, Floats, Resampling, finite
from afa_llm.evaluation.faithfulness import (
    MaskedProbability,
    Removal,
    RemovalScores,
    check_focus,
    removal_scores,
    tie_noise,
)
from afa_llm.evaluation.focus_metrics import METRICS, NULL_FLOOR
from afa_llm.evaluation.plausibility import decisive, iou_f1, token_f1, top_words
from afa_llm.evaluation.word_frequencies import WordFrequencies, is_stop_word
from afa_llm.records import Example

WEIGHTED = "value_weighted"
"""Suffix of the metrics of the value-weighted focus."""

Pair = tuple[float, float]
"""A metric's value for one review, and what a blind focus would get there."""


@dataclass(frozen=True)
class FocusScores:
    """Every metric for every review, by name; NaN where it is not defined. `chance`: what a blind focus would get."""

    values: dict[str, Floats]
    chance: dict[str, Floats]
    removal: RemovalScores


@dataclass(frozen=True)
class FocusComparison:
    """One metric over the reviews of a data set. `left_out`: reviews for which it is not defined.

    `difference`: after − before over the reviews that have both; none where there is no after.
    """

    metric: str
    before: Estimate
    chance_before: float
    left_out: int
    after: Estimate | None = None
    chance_after: float | None = None
    difference: Estimate | None = None


@dataclass(frozen=True)
class LeaveOneOut:
    """Whose words are hidden one by one: of the first `samples` reviews those of 2 to `words` words."""

    samples: int = 0
    words: int = 60

    def chosen(self, examples: Sequence[Example]) -> list[int]:
        return [n for n, example in enumerate(examples[: self.samples]) if 2 <= len(example.words) <= self.words]


def focus_scores(
    examples: Sequence[Example],
    focus_N: Sequence[Floats],
    probability: MaskedProbability,
    frequencies: WordFrequencies,
    fractions: Sequence[float],
    seed: int,
    *,
    weighted_N: Sequence[Floats] | None = None,
    leave_one_out: LeaveOneOut | None = None,
) -> FocusScores:
    """All metrics for the focus over the words of each review; `weighted_N` is the value-weighted focus, if read.

    Raises AfaError where focus does not fit the words.
    """
    _check_lengths(examples, focus_N)
    removal = removal_scores(
        focus_N,
        probability,
        fractions,
        seed,
        strata_N=[[frequencies.bucket(word) for word in _words(example)] for example in examples],
        others={WEIGHTED: weighted_N} if weighted_N is not None else None,
        leave_one_out=(leave_one_out or LeaveOneOut()).chosen(examples),
    )
    rows = []
    for n, example in enumerate(examples):
        noise_W = tie_noise(seed, n, len(example.words))
        row = _review(example, check_focus(focus_N[n], n), frequencies, removal.leave_one_out_N[n], noise_W)
        if weighted_N is not None:
            check_focus(weighted_N[n], n)
            other = _review(example, weighted_N[n], frequencies, removal.leave_one_out_N[n], noise_W)
            row |= {f"{name}_{WEIGHTED}": pair for name, pair in other.items()}
        rows.append(row | _removals(removal, n))
    nothing: Pair = (math.nan, math.nan)
    columns = {metric.name: [row.get(metric.name, nothing) for row in rows] for metric in METRICS}
    tables = {name: np.array(column, dtype=np.float64).reshape(-1, 2) for name, column in columns.items()}
    values, chance = ({name: table[:, k] for name, table in tables.items()} for k in (0, 1))
    return FocusScores(values, chance, removal)


def compare_focus(
    before: FocusScores, after: FocusScores | None, clusters_N: Sequence[str], how: Resampling
) -> list[FocusComparison]:
    """One row per metric, in the order of METRICS. `clusters_N`: what each review belongs to, as in `clusters_of`."""
    return [_compare(metric.name, before, after, clusters_N, how) for metric in METRICS]


def normalised_entropy(focus_W: Floats) -> float:
    """Entropy over log W, in [0, 1]; NaN for fewer than two words."""
    if len(focus_W) < 2:
        return math.nan
    return float(stats.entropy(focus_W) / math.log(len(focus_W)))


def frequency_correlation(focus_W: Floats, count_W: Floats) -> float:
    """Spearman correlation with log(1 + count); NaN where either does not vary.

    `count_W` NaN: punctuation, which has no frequency. It is left out, else a full stop that is looked at would pass
    for the rarest word of all.
    """
    word_W = np.isfinite(count_W)
    focus_W, count_W = focus_W[word_W], count_W[word_W]
    if len(focus_W) < 2 or np.ptp(focus_W) == 0 or np.ptp(count_W) == 0:
        return math.nan
    return float(stats.spearmanr(focus_W, np.log1p(count_W)).statistic)


def rank_agreement(focus_W: Floats, drop_W: Floats | None) -> float:
    """Kendall's τ-b (1945) of focus and leave-one-out; NaN where it was not asked or either does not vary."""
    if drop_W is None or len(focus_W) < 2 or np.ptp(focus_W) == 0 or np.ptp(drop_W) == 0:
        return math.nan
    return float(stats.kendalltau(focus_W, drop_W).statistic)


def normalised(drop: float, all_hidden: float) -> float:
    """A removal's fall as a share of the fall when every word is hidden, cut to [0, 1]; NaN where that is too small.

    After Carton, Rathore and Tan (2020, arXiv 2010.04736): raw falls depend on how far the model moves at all. The
    floor is ours.
    """
    if not all_hidden >= NULL_FLOOR:
        return math.nan
    return float(np.clip(drop / all_hidden, 0.0, 1.0))


def _words(example: Example) -> list[str]:
    return [example.text[start:end] for start, end in example.words]


def _review(
    example: Example, focus_W: Floats, frequencies: WordFrequencies, drop_W: Floats | None, noise_W: Floats
) -> dict[str, Pair]:
    """The metrics that one review's own focus defines."""
    if not len(focus_W):
        return {}
    focus_W = focus_W / focus_W.sum()
    words = _words(example)
    counts_W = np.array([math.nan if is_punctuation(w) else frequencies.count(w) for w in words], dtype=np.float64)
    found = {
        "leave_one_out_tau": (rank_agreement(focus_W, drop_W), 0.0),
        "rare_mass": _mass(focus_W, [frequencies.is_rare(word) for word in words]),
        "stop_word_mass": _mass(focus_W, [is_stop_word(word) for word in words]),
        "punctuation_mass": _mass(focus_W, [is_punctuation(word) for word in words]),
        "entropy": (normalised_entropy(focus_W), 1.0),
        "frequency_correlation": (frequency_correlation(focus_W, counts_W), 0.0),
    }
    marked_W = decisive(example)
    if marked_W is not None:
        prevalence, count = float(marked_W.mean()), int(marked_W.sum())
        found["auprc"] = (float(average_precision_score(marked_W, focus_W)), prevalence)
        found["token_f1"] = (token_f1(focus_W, marked_W), prevalence)
        top_W, random_W = (
            top_words(order_W, count) for order_W in (np.lexsort((noise_W, -focus_W)), np.argsort(noise_W))
        )
        found["iou_f1"] = (iou_f1(top_W, marked_W), iou_f1(random_W, marked_W))
    return found


def _mass(focus_W: Floats, member_W: Sequence[bool]) -> Pair:
    return float(focus_W[np.asarray(member_W, dtype=bool)].sum()), float(np.mean(member_W))


def _removals(removal: RemovalScores, n: int) -> dict[str, Pair]:
    """The metrics of one review that come from hiding its words."""
    found: dict[str, Pair] = {}
    all_hidden = float(removal.all_hidden_N[n])
    for name, sign in (("comprehensiveness", 1.0), ("sufficiency", -1.0)):
        own, random, matched = (_of(each, name, n) for each in (removal.focus, removal.random, removal.matched))
        found[name] = (own, random)
        found[f"{name}_gain"] = (sign * (own - random), own * 0)
        found[f"{name}_matched_gain"] = (sign * (own - matched), own * 0)
        found[f"{name}_normalised"] = (normalised(own, all_hidden), normalised(random, all_hidden))
        for other, scores in removal.others.items():
            found[f"{name}_{other}"] = (_of(scores, name, n), random)
    return found


def _of(removal: Removal, name: str, n: int) -> float:
    return float(getattr(removal, f"{name}_N")[n])


def _compare(
    name: str, before: FocusScores, after: FocusScores | None, clusters_N: Sequence[str], how: Resampling
) -> FocusComparison:
    old_N = before.values[name]
    row = FocusComparison(
        metric=name,
        before=_estimate(old_N, clusters_N, how),
        chance_before=_mean(before.chance[name]),
        left_out=int(np.isnan(old_N).sum()),
    )
    if after is None:
        return row
    new_N = after.values[name]
    paired = {
        "after": _estimate(new_N, clusters_N, how),
        "chance_after": _mean(after.chance[name]),
        "difference": _estimate(new_N - old_N, clusters_N, how),
    }
    return FocusComparison(**{**vars(row), **paired})


def _estimate(values_N: Floats, clusters_N: Sequence[str], how: Resampling) -> Estimate:
    """Mean of the reviews that have a value, with an interval that keeps together what belongs together."""
    known_N = np.isfinite(values_N)
    return cluster_mean(values_N[known_N], list(itertools.compress(clusters_N, known_N)), how)


def _mean(chance_N: Floats) -> float:
    kept = finite(chance_N)
    return float(kept.mean()) if len(kept) else math.nan


def _check_lengths(examples: Sequence[Example], focus_N: Sequence[Floats]) -> None:
    if len(examples) != len(focus_N):
        raise ValueError(f"{len(examples)} reviews, but focus for {len(focus_N)}")
    for example, focus_W in zip(examples, focus_N, strict=True):
        if len(example.words) != len(focus_W):
            raise AfaError(
                f"example {example.example_id!r} has {len(example.words)} words, but focus over {len(focus_W)}; "
                "was its prompt cut? Set data.too_long: quarantine"
            )
