"""The metrics of the focus: their names, which way is better, and what they mean. Computed in focus_quality."""

from __future__ import annotations

from dataclasses import dataclass

NULL_FLOOR = 0.05
"""Least p(ŷ | x) − p(ŷ | all words hidden) by which removals are normalised: below it there is nothing to share out."""


@dataclass(frozen=True)
class FocusMetric:
    """A measure of the focus: `better` is higher, lower, or empty where neither is better in itself."""

    name: str
    title: str
    better: str
    meaning: str
    family: str


FAITHFUL = "Faithful: does the model decide by the words it looks at?"
PLAUSIBLE = "Plausible: does it look where people do?"
KINDS = "On which kinds of words does it lie?"

METRICS = (
    FocusMetric(
        "comprehensiveness", "Comprehensiveness", "higher",
        "Fall of the predicted label's probability when the most focused words are hidden. Chance: random words.",
        FAITHFUL,
    ),
    FocusMetric(
        "comprehensiveness_gain", "… above random words", "higher",
        "The same, less the fall that as many random words cause.", FAITHFUL,
    ),
    FocusMetric(
        "comprehensiveness_matched_gain", "… above words of like frequency", "higher",
        "The same, less the fall that random words cause which are as rare or frequent as the focused ones.", FAITHFUL,
    ),
    FocusMetric(
        "comprehensiveness_normalised", "… normalised", "higher",
        "The fall as a share, 0 to 1, of the fall when every word is hidden, so that two models can be compared; "
        f"reviews where that is under {NULL_FLOOR:g} are left out (after Carton et al. 2020). Chance: random words.",
        FAITHFUL,
    ),
    FocusMetric(
        "comprehensiveness_value_weighted", "… by value-weighted focus", "higher",
        "Comprehensiveness of attention × length of the value vector. Chance: random words.", FAITHFUL,
    ),
    FocusMetric(
        "sufficiency", "Sufficiency gap", "lower",
        "Fall of that probability when all but the most focused words are hidden. Chance: random words.", FAITHFUL,
    ),
    FocusMetric(
        "sufficiency_gain", "… below random words", "higher",
        "How much smaller the gap is than with as many random words kept.", FAITHFUL,
    ),
    FocusMetric(
        "sufficiency_matched_gain", "… below words of like frequency", "higher",
        "How much smaller the gap is than with random words kept that are as rare or frequent.", FAITHFUL,
    ),
    FocusMetric(
        "sufficiency_normalised", "… normalised", "lower",
        "The gap as a share, 0 to 1, of the fall when every word is hidden. Chance: random words.", FAITHFUL,
    ),
    FocusMetric(
        "sufficiency_value_weighted", "… by value-weighted focus", "lower",
        "Sufficiency gap of attention × length of the value vector. Chance: random words.", FAITHFUL,
    ),
    FocusMetric(
        "leave_one_out_tau", "Agreement with leave-one-out", "higher",
        "Kendall's τ-b of the focus and the fall when each word alone is hidden, on the first reviews only "
        "(evaluation.leave_one_out_samples). Chance: 0.", FAITHFUL,
    ),
    FocusMetric(
        "leave_one_out_tau_value_weighted", "… by value-weighted focus", "higher",
        "The same for attention × length of the value vector.", FAITHFUL,
    ),
    FocusMetric(
        "auprc", "AUPRC against rationales", "higher",
        "Average precision of the focus at finding the words people call decisive. Chance: their share.", PLAUSIBLE,
    ),
    FocusMetric(
        "auprc_value_weighted", "… by value-weighted focus", "higher",
        "The same for attention × length of the value vector.", PLAUSIBLE,
    ),
    FocusMetric(
        "token_f1", "Token F1 against rationales", "higher",
        "Share of decisive words among as many most focused words. Chance: their share.", PLAUSIBLE,
    ),
    FocusMetric(
        "iou_f1", "IOU F1 against rationales", "higher",
        "F1 of runs of the most focused words that overlap a run of decisive words by half or more of their union "
        "(ERASER). Chance: as many random words.", PLAUSIBLE,
    ),
    FocusMetric(
        "rare_mass", "Focus on rare words", "",
        "Share of the focus on words that are rare in the training reviews. Chance: their share of the words.", KINDS,
    ),
    FocusMetric(
        "stop_word_mass", "Focus on stop words", "lower",
        "Share of the focus on function words. Chance: their share of the words.", KINDS,
    ),
    FocusMetric(
        "punctuation_mass", "Focus on punctuation", "lower",
        "Share of the focus on words without a letter, digit or pictograph. Chance: their share of the words.", KINDS,
    ),
    FocusMetric("entropy", "Normalised entropy", "", "0: all focus on one word; 1: spread evenly.", KINDS),
    FocusMetric(
        "frequency_correlation", "Correlation with word frequency", "",
        "Spearman correlation of focus and log training frequency within a review: above 0, it follows common words.",
        KINDS,
    ),
    FocusMetric(
        "frequency_correlation_value_weighted", "… by value-weighted focus", "",
        "The same for attention × length of the value vector.", KINDS,
    ),
)  # fmt: skip
