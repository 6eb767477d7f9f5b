"""How good are the answers: accuracy, AUROC, F1, calibration error, and who is worst off.

Legend: N items, C labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp
from sklearn.metrics import f1_score, roc_auc_score

from afa_llm.evaluation.estimates import Estimate, Floats, Ints, wilson

ECE_BINS = 15


@dataclass(frozen=True)
class Scores:
    """Scores of one set of answers. Shares are in [0, 1]; NaN where `count` is 0.

    `accuracy`: with Wilson interval. `auroc`, `ece`: see `auroc`, `expected_calibration_error`. `macro_f1`: mean F1 of
    the labels that occur among labels or predictions (a label never predicted scores 0, a label in neither is left
    out), as scikit-learn does. `brier`: mean over items of Σ_c (p_c − [label = c])², in [0, 2] (Brier 1950).
    `log_prob_of_label`: mean in nats. `predicted_rate`, `label_rate`: share of items per label. `group_accuracy`: per
    named group; items without a group are not in it. `worst_group`: the group of lowest accuracy, none without groups.
    """

    count: int
    accuracy: Estimate
    auroc: float
    macro_f1: float
    brier: float
    ece: float
    log_prob_of_label: float
    predicted_rate: tuple[float, ...]
    label_rate: tuple[float, ...]
    group_accuracy: dict[str, Estimate]
    worst_group: str | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def score(
    log_prob_NC: Floats, label_N: Ints, groups_N: Sequence[str] | None = None, confidence: float = 0.95
) -> Scores:
    """Scores of log-probabilities over labels; they are normalised over the labels first.

    A tie is answered with the first label. Raises ValueError for shapes that disagree, labels out of range, NaN.
    """
    log_prob_NC, label_N = _checked(log_prob_NC, label_N)
    count, classes = log_prob_NC.shape
    log_prob_NC = log_softmax(log_prob_NC, axis=1) if count else log_prob_NC
    prob_NC, prediction_N = np.exp(log_prob_NC), predictions(log_prob_NC)
    right_N = prediction_N == label_N
    groups = _group_accuracy(right_N, groups_N, confidence)
    return Scores(
        count=count,
        accuracy=wilson(int(right_N.sum()), count, confidence),
        auroc=auroc(log_prob_NC, label_N),
        macro_f1=float(f1_score(label_N, prediction_N, average="macro", zero_division=0)) if count else math.nan,
        brier=float(((prob_NC - np.eye(classes)[label_N]) ** 2).sum(axis=1).mean()) if count else math.nan,
        ece=expected_calibration_error(prob_NC, label_N),
        log_prob_of_label=float(log_prob_NC[np.arange(count), label_N].mean()) if count else math.nan,
        predicted_rate=_rates(prediction_N, classes),
        label_rate=_rates(label_N, classes),
        group_accuracy=groups,
        worst_group=min(groups, key=lambda name: (groups[name].value, name)) if groups else None,
    )


def predictions(log_prob_NC: Floats) -> Ints:
    """The most probable label [N]; the first one of a tie."""
    return log_prob_NC.argmax(axis=1).astype(np.int64)


def auroc(log_prob_NC: Floats, label_N: Ints) -> float:
    """How well the answers rank, whatever the threshold: a gain in accuracy without one here is the threshold's.

    P(an item of the label has higher odds of it than one of another) + P(equal) / 2: area under the ROC curve (Hanley &
    McNeil 1982). With more than two labels the mean over labels, each against the rest (scikit-learn's one-vs-rest),
    leaving out those that no item has. With two it is the same under every calibration that gives each item the same
    prior. NaN where all items have one label, and for none.
    """
    found = []
    for label in np.unique(label_N).tolist():
        is_label_N = label_N == label
        if not is_label_N.all():
            found.append(float(roc_auc_score(is_label_N, odds(log_prob_NC, label))))
    return sum(found) / len(found) if found else math.nan


def odds(log_prob_NC: Floats, label: int) -> Floats:
    """Log odds [N] of a label against the others together. Near 1 float64 has no room left between two p."""
    found_N: Floats = log_prob_NC[:, label] - logsumexp(np.delete(log_prob_NC, label, axis=1), axis=1)
    return found_N


def expected_calibration_error(prob_NC: Floats, label_N: Ints, bins: int = ECE_BINS) -> float:
    """Σ over bins of (items in bin / N) · |accuracy − mean confidence| (Naeini et al. 2015, Guo et al. 2017).

    Confidence is the predicted label's probability. Bins are equally wide over [0, 1] and closed above;
    with two labels only the upper half can be filled.
    """
    if not len(prob_NC):
        return math.nan
    confidence_N = prob_NC.max(axis=1)
    right_N = predictions(prob_NC) == label_N
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)
    gap_per_bin = np.bincount(bin_N, weights=right_N - confidence_N, minlength=bins)
    return float(np.abs(gap_per_bin).sum() / len(prob_NC))


def _rates(values_N: Ints, classes: int) -> tuple[float, ...]:
    counts = np.bincount(values_N, minlength=classes)
    return tuple((counts / len(values_N)).tolist()) if len(values_N) else (math.nan,) * classes


def _group_accuracy(right_N: np.ndarray, groups_N: Sequence[str] | None, confidence: float) -> dict[str, Estimate]:
    if groups_N is None:
        return {}
    if len(groups_N) != len(right_N):
        raise ValueError(f"{len(right_N)} answers, but {len(groups_N)} groups")
    of_group: dict[str, list[bool]] = {}  # names compared by Python: numpy's text has no trailing NULs
    for name, right in zip(groups_N, right_N.tolist(), strict=True):
        of_group.setdefault(name, []).append(right)
    return {name: wilson(sum(of_group[name]), len(of_group[name]), confidence) for name in sorted(of_group) if name}


def _checked(log_prob_NC: Floats, label_N: Ints) -> tuple[Floats, Ints]:
    log_prob_NC, label_N = np.asarray(log_prob_NC, dtype=np.float64), np.asarray(label_N, dtype=np.int64)
    if log_prob_NC.ndim != 2 or len(log_prob_NC) != len(label_N):
        raise ValueError(f"log-probabilities {log_prob_NC.shape} do not fit labels {label_N.shape}")
    if not np.isfinite(log_prob_NC).all():
        raise ValueError("log-probabilities hold NaN or infinities")
    if len(label_N) and not 0 <= label_N.min() <= label_N.max() < log_prob_NC.shape[1]:
        raise ValueError(f"labels must lie in 0..{log_prob_NC.shape[1] - 1}")
    return log_prob_NC, label_N
