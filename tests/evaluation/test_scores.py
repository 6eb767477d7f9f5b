"""Scores against scikit-learn and numbers worked by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score

from afa_llm.evaluation.scores import auroc, expected_calibration_error, score


def _random(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.log(rng.dirichlet(np.ones(classes), size=count)), rng.integers(classes, size=count)


@pytest.mark.parametrize(("count", "classes"), [(200, 2), (57, 3), (5, 6)])
def test_scores_equal_scikit_learn(count: int, classes: int) -> None:
    log_prob, label = _random(count, classes, seed=count)
    found, predicted = score(log_prob, label), log_prob.argmax(1)
    assert found.accuracy.value == pytest.approx(accuracy_score(label, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(label, predicted, average="macro", zero_division=0))
    assert found.log_prob_of_label == pytest.approx(-log_loss(label, np.exp(log_prob), labels=range(classes)))


@pytest.mark.parametrize(("count", "classes"), [(200, 2), (57, 3), (400, 5)])
def test_auroc_equals_scikit_learn(count: int, classes: int) -> None:
    log_prob, label = _random(count, classes, seed=count)
    asked = {"multi_class": "ovr"} if classes > 2 else {}
    wanted = roc_auc_score(label, np.exp(log_prob) if classes > 2 else np.exp(log_prob[:, 1]), **asked)
    assert score(log_prob, label).auroc == pytest.approx(wanted)


def test_auroc_by_hand() -> None:
    prob = np.array([0.9, 0.4, 0.3, 0.4, 0.1])
    # Pairs of a positive and a negative one: 0.9 wins both, 0.4 ties one and wins one, 0.3 loses one and wins one.
    found = auroc(np.log(np.stack([1 - prob, prob], axis=1)), np.array([1, 1, 1, 0, 0]))
    assert found == pytest.approx((2 + 1.5 + 1) / 6)


def test_auroc_has_no_threshold_and_no_limit_of_confidence() -> None:
    logit, label = np.array([50.0, 40.0, 45.0, 41.0]), np.array([1, 0, 0, 1])
    log_prob = np.stack([np.zeros(4), logit], axis=1)  # p is 1 to the last bit in all four
    assert auroc(log_prob, label) == pytest.approx(3 / 4)
    assert auroc(log_prob - [0.0, 43.0], label) == pytest.approx(3 / 4)


def test_auroc_leaves_out_labels_that_no_item_has() -> None:
    log_prob, label = _random(60, 3, seed=4)
    log_prob = np.insert(log_prob, 1, -60.0, axis=1)  # a fourth label, between the others, of no weight and no item
    assert auroc(log_prob, np.array([0, 2, 3])[label]) == pytest.approx(auroc(np.delete(log_prob, 1, axis=1), label))
    assert math.isnan(auroc(log_prob[:3], np.array([2, 2, 2])))


def test_by_hand() -> None:
    prob = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    label = np.array([0, 1, 1, 0])
    found = score(np.log(prob), label, ["a", "a", "b", ""])
    assert found.accuracy.value == 0.5
    assert found.predicted_rate == (0.5, 0.5)
    assert found.label_rate == (0.5, 0.5)
    # Σ_c: 2·0.01, 2·0.36, 2·0.04, 2·0.49
    assert found.brier == pytest.approx((0.02 + 0.72 + 0.08 + 0.98) / 4)
    assert found.log_prob_of_label == pytest.approx(math.log(0.9 * 0.4 * 0.8 * 0.3) / 4)
    assert {name: group.value for name, group in found.group_accuracy.items()} == {"a": 0.5, "b": 1.0}
    assert found.worst_group == "a"
    assert found.group_accuracy["b"].count == 1


def test_a_label_never_predicted_counts_as_zero_and_an_absent_one_not_at_all() -> None:
    log_prob = np.log(np.array([[0.8, 0.1, 0.1]] * 4))
    # predicted 0 always, labels 0 0 0 1: F1 of 0 is 6/7, of 1 is 0, label 2 occurs nowhere
    assert score(log_prob, np.array([0, 0, 0, 1])).macro_f1 == pytest.approx((6 / 7) / 2)


def test_unnormalised_log_probabilities_are_normalised_over_the_labels() -> None:
    log_prob, label = _random(20, 2, seed=1)
    shifted = score(log_prob - 7.5, label)
    assert shifted.brier == pytest.approx(score(log_prob, label).brier)
    assert shifted.log_prob_of_label == pytest.approx(score(log_prob, label).log_prob_of_label)


def test_ece_by_hand() -> None:
    prob = np.array([[0.95, 0.05], [0.95, 0.05], [0.62, 0.38], [0.35, 0.65]])
    label = np.array([0, 1, 0, 1])
    # bin 15: two items, accuracy 1/2, confidence 0.95; bin 10 (0.6, 0.667]: both right, confidence 0.635
    assert expected_calibration_error(prob, label) == pytest.approx(0.5 * 0.45 + 0.5 * 0.365)


def test_ece_keeps_errors_of_different_bins_apart() -> None:
    prob = np.array([[1.0, 0.0], [0.55, 0.45]])
    # overconfident in one bin (1 − 0), underconfident in the other (1 − 0.55): they must not cancel
    assert expected_calibration_error(prob, np.array([1, 0])) == pytest.approx(0.5 * 1.0 + 0.5 * 0.45)


def test_ece_bins_are_closed_above() -> None:
    # 0.6 = 9/15 belongs to the bin below 0.65: two bins, one right and one wrong answer
    prob = np.array([[0.6, 0.4], [0.65, 0.35]])
    assert expected_calibration_error(prob, np.array([0, 1])) == pytest.approx(0.5 * 0.4 + 0.5 * 0.65)


def test_no_items_give_nan() -> None:
    found = score(np.zeros((0, 2)), np.zeros(0, dtype=int), [])
    assert found.count == 0
    assert math.isnan(found.accuracy.value)
    assert math.isnan(found.auroc)
    assert math.isnan(found.macro_f1)
    assert found.worst_group is None
    assert len(found.as_dict()["predicted_rate"]) == 2


@pytest.mark.parametrize(
    ("log_prob", "label", "message"),
    [
        ([[0.0, math.nan]], [0], "NaN"),
        ([[0.0, -1.0]], [2], "labels must lie"),
        ([[0.0, -1.0]], [-1], "labels must lie"),
        ([[0.0, -1.0]], [0, 1], "do not fit"),
    ],
)
def test_nonsense_is_refused(log_prob: list, label: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(np.array(log_prob), np.array(label))


def test_group_names_that_end_in_a_null_character_have_their_reviews() -> None:
    found = score(np.log([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]]), np.array([0, 1, 1]), ["x\0", "x", "x\0"])
    assert {name: (group.value, group.count) for name, group in found.group_accuracy.items()} == {
        "x": (0.0, 1),
        "x\0": (1.0, 2),
    }
    assert found.worst_group == "x"
