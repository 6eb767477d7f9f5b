"""Focus quality: is the focus faithful to the model, plausible to people, and on which kinds of words does it lie?

Legend: N reviews, W words of one review, C labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.metrics import average_precision_score

from afa_llm.errors import AfaError
from afa_llm.evaluation.estimates import Estimate, Floats, Resampling, bootstrap_mean, finite
from afa_llm.evaluation.faithfulness import MaskedProbability, RemovalScores, check_focus, removal_scores
from afa_llm.evaluation.significance import paired_difference
from afa_llm.evaluation.word_frequencies import WordFrequencies, is_punctuation, is_stop_word
from afa_llm.records import Example

RATIONALE_THRESHOLD = 0.5
"""A word is decisive where its rationale is at least this (half of the annotators)."""


@dataclass(frozen=True)
class FocusMetric:
    """A measure of the focus: `better` is higher, lower, or empty where neither is better in itself."""

    name: str
    title: str
    better: str
    meaning: str


METRICS = (
    FocusMetric(
        "comprehensiveness", "Comprehensiveness", "higher",
        "Fall of the predicted label's probability when the most focused words are hidden. Chance: random words.",
    ),
    FocusMetric(
        "comprehensiveness_gain", "… above random words", "higher",
        "The same, less the fall that as many random words cause.",
    ),
    FocusMetric(
        "sufficiency", "Sufficiency gap", "lower",
        "Fall of that probability when all but the most focused words are hidden. Chance: random words.",
    ),
    FocusMetric(
        "sufficiency_gain", "… below random words", "higher",
        "How much smaller the gap is than with as many random words kept.",
    ),
    FocusMetric(
        "auprc", "AUPRC against rationales", "higher",
        "Average precision of the focus at finding the words people call decisive. Chance: their share.",
    ),
    FocusMetric(
        "token_f1", "Token F1 against rationales", "higher",
        "Share of decisive words among as many most focused words. Chance: their share.",
    ),
    FocusMetric(
        "rare_mass", "Focus on rare words", "",
        "Share of the focus on words that are rare in the training reviews. Chance: their share of the words.",
    ),
    FocusMetric(
        "stop_word_mass", "Focus on stop words", "lower",
        "Share of the focus on function words. Chance: their share of the words.",
    ),
    FocusMetric(
        "punctuation_mass", "Focus on punctuation", "lower",
        "Share of the focus on words without a letter, digit or pictograph. Chance: their share of the words.",
    ),
    FocusMetric("entropy", "Normalised entropy", "", "0: all focus on one word; 1: spread evenly."),
    FocusMetric(
        "frequency_correlation", "Correlation with word frequency", "",
        "Spearman correlation of focus and log training frequency within a review: above 0, it follows common words.",
    ),
)  # fmt: skip


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


def focus_scores(
    examples: Sequence[Example],
    focus_N: Sequence[Floats],
    probability: MaskedProbability,
    frequencies: WordFrequencies,
    fractions: Sequence[float],
    seed: int,
) -> FocusScores:
    """All metrics for the focus over the words of each review. Raises AfaError where focus does not fit the words."""
    _check_lengths(examples, focus_N)
    removal = removal_scores(focus_N, probability, fractions, seed)
    rows = [_review(example, check_focus(focus_N[n], n), frequencies) for n, example in enumerate(examples)]
    names = [metric.name for metric in METRICS if metric.name not in _REMOVAL]
    values = {name: np.array([row.get(name, (math.nan, math.nan))[0] for row in rows]) for name in names}
    chance = {name: np.array([row.get(name, (math.nan, math.nan))[1] for row in rows]) for name in names}
    values.update(_removal_values(removal))
    chance["comprehensiveness"] = removal.comprehensiveness_random_N
    chance["sufficiency"] = removal.sufficiency_random_N
    for name in ("comprehensiveness_gain", "sufficiency_gain"):
        chance[name] = values[name] * 0
    return FocusScores(values, chance, removal)


def compare_focus(before: FocusScores, after: FocusScores | None, how: Resampling) -> list[FocusComparison]:
    """One row per metric, in the order of METRICS."""
    return [_compare(metric.name, before, after, how) for metric in METRICS]


def decisive(example: Example) -> np.ndarray | None:
    """Which words are decisive [W], or none where the rationale is absent, marks no word or marks all of them."""
    if example.rationale is None or not len(example.words):
        return None
    marked_W = np.asarray(example.rationale, dtype=np.float64) >= RATIONALE_THRESHOLD
    return marked_W if 0 < marked_W.sum() < len(marked_W) else None


def token_f1(focus_W: Floats, marked_W: np.ndarray) -> float:
    """F1 of the R most focused words against the R decisive ones: precision, recall and F1 are then one number.

    Words tied at the border count by their expected share.
    """
    count = int(marked_W.sum())
    border = np.sort(focus_W)[-count]
    above_W, tied_W = focus_W > border, focus_W == border
    hits = marked_W[above_W].sum() + (count - above_W.sum()) * marked_W[tied_W].mean()
    return float(hits / count)


def normalised_entropy(focus_W: Floats) -> float:
    """Entropy over log W, in [0, 1]; NaN for fewer than two words."""
    if len(focus_W) < 2:
        return math.nan
    return float(stats.entropy(focus_W) / math.log(len(focus_W)))


def frequency_correlation(focus_W: Floats, count_W: Floats) -> float:
    """Spearman correlation with log(1 + count); NaN where either does not vary."""
    if len(focus_W) < 2 or np.ptp(focus_W) == 0 or np.ptp(count_W) == 0:
        return math.nan
    return float(stats.spearmanr(focus_W, np.log1p(count_W)).statistic)


_REMOVAL = ("comprehensiveness", "comprehensiveness_gain", "sufficiency", "sufficiency_gain")


def _review(example: Example, focus_W: Floats, frequencies: WordFrequencies) -> dict[str, tuple[float, float]]:
    """Metric -> (value, what a blind focus would get) for those that one review defines."""
    if not len(focus_W):
        return {}
    focus_W = focus_W / focus_W.sum()
    words = [example.text[start:end] for start, end in example.words]
    counts_W = np.array([frequencies.count(word) for word in words], dtype=np.float64)
    found = {
        "rare_mass": _mass(focus_W, [frequencies.is_rare(word) for word in words]),
        "stop_word_mass": _mass(focus_W, [is_stop_word(word) for word in words]),
        "punctuation_mass": _mass(focus_W, [is_punctuation(word) for word in words]),
        "entropy": (normalised_entropy(focus_W), 1.0),
        "frequency_correlation": (frequency_correlation(focus_W, counts_W), 0.0),
    }
    marked_W = decisive(example)
    if marked_W is not None:
        prevalence = float(marked_W.mean())
        found["auprc"] = (float(average_precision_score(marked_W, focus_W)), prevalence)
        found["token_f1"] = (token_f1(focus_W, marked_W), prevalence)
    return found


def _mass(focus_W: Floats, member_W: Sequence[bool]) -> tuple[float, float]:
    return float(focus_W[np.asarray(member_W, dtype=bool)].sum()), float(np.mean(member_W))


def _removal_values(removal: RemovalScores) -> dict[str, Floats]:
    return {
        "comprehensiveness": removal.comprehensiveness_N,
        "comprehensiveness_gain": removal.comprehensiveness_N - removal.comprehensiveness_random_N,
        "sufficiency": removal.sufficiency_N,
        "sufficiency_gain": removal.sufficiency_random_N - removal.sufficiency_N,
    }


def _compare(name: str, before: FocusScores, after: FocusScores | None, how: Resampling) -> FocusComparison:
    old_N = before.values[name]
    row = FocusComparison(
        metric=name,
        before=bootstrap_mean(old_N, how.samples, how.confidence, how.seed),
        chance_before=_mean(before.chance[name]),
        left_out=int(np.isnan(old_N).sum()),
    )
    if after is None:
        return row
    new_N = after.values[name]
    paired = {
        "after": bootstrap_mean(new_N, how.samples, how.confidence, how.seed),
        "chance_after": _mean(after.chance[name]),
        "difference": paired_difference(old_N, new_N, how.samples, how.confidence, how.seed),
    }
    return FocusComparison(**{**vars(row), **paired})


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
