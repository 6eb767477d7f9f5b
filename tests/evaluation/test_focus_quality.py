"""Plausibility and distribution of the focus, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from afa_llm.errors import AfaError
from afa_llm.evaluation.estimates import Resampling
from afa_llm.evaluation.focus_quality import (
    METRICS,
    FocusComparison,
    FocusScores,
    compare_focus,
    decisive,
    focus_scores,
    frequency_correlation,
    normalised_entropy,
    token_f1,
)
from afa_llm.evaluation.word_frequencies import WordFrequencies
from afa_llm.records import Example

HOW = Resampling(300, 0.95, 0)
FREQUENCIES = WordFrequencies({"the": 50, "film": 20, "is": 30, "superb": 2}, threshold=5)


def flat_model(reviews, hidden):
    """Removal never changes the answer."""
    return np.log(np.tile([0.4, 0.6], (len(reviews), 1)))


def review(rationale: tuple[float, ...] | None = (0.0, 0.0, 0.0, 1.0, 0.0)) -> Example:
    return Example("r", "The film is superb !", 1, ((0, 3), (4, 8), (9, 11), (12, 18), (19, 20)), rationale)


def scores_of(focus: list[float], example: Example | None = None) -> FocusScores:
    return focus_scores([example or review()], [np.array(focus)], flat_model, FREQUENCIES, (0.2,), seed=0)


def test_masses_and_their_chance_by_hand() -> None:
    found = scores_of([2.0, 3.0, 1.0, 3.0, 1.0])  # sums to 10: it is normalised
    values = {name: value.item() for name, value in found.values.items()}
    chance = {name: value.item() for name, value in found.chance.items()}
    assert values["rare_mass"] == pytest.approx(0.3)
    assert values["stop_word_mass"] == pytest.approx(0.3)
    assert values["punctuation_mass"] == pytest.approx(0.1)
    assert (chance["rare_mass"], chance["stop_word_mass"], chance["punctuation_mass"]) == pytest.approx((0.2, 0.4, 0.2))
    assert chance["auprc"] == pytest.approx(0.2)
    assert values["comprehensiveness"] == 0.0
    assert set(values) == set(chance) == {metric.name for metric in METRICS}


def test_gains_are_positive_where_the_focus_beats_random_words() -> None:
    def model(reviews, hidden):
        """Only word 3 decides: p(1) = 0.9 with it, 0.5 without."""
        positive = np.array([0.5 if 3 in words else 0.9 for words in hidden])
        return np.log(np.stack([1 - positive, positive], axis=1))

    found = focus_scores([review()] * 30, [np.array([1.0, 1, 1, 9, 1])] * 30, model, FREQUENCIES, (0.2,), seed=0)
    mean = {name: values.mean() for name, values in found.values.items()}
    assert mean["comprehensiveness"] == pytest.approx(0.4)
    assert mean["sufficiency"] == pytest.approx(0.0)
    # one random word of five is word 3 in a fifth of the reviews: 0.4 · 4/5; standard error 0.03
    assert mean["comprehensiveness_gain"] == pytest.approx(0.32, abs=0.1)
    assert mean["sufficiency_gain"] == pytest.approx(0.32, abs=0.1)
    assert found.chance["comprehensiveness_gain"].tolist() == [0.0] * 30


def test_average_precision_by_hand() -> None:
    example = review((0.0, 1.0, 0.0, 0.5, 0.49))  # decisive: words 1 and 3
    # ranks: word 3 first (1/1), word 0, word 1 third (2/3): mean 5/6
    found = scores_of([0.25, 0.2, 0.1, 0.4, 0.05], example)
    assert found.values["auprc"].item() == pytest.approx(5 / 6)
    assert found.values["token_f1"].item() == pytest.approx(1 / 2)
    assert scores_of([0.2] * 5, example).values["auprc"].item() == pytest.approx(2 / 5)  # flat focus: prevalence


def test_token_f1_shares_ties() -> None:
    marked = np.array([True, True, False, False])
    assert token_f1(np.array([0.4, 0.3, 0.2, 0.1]), marked) == 1.0
    assert token_f1(np.array([0.1, 0.2, 0.3, 0.4]), marked) == 0.0
    assert token_f1(np.full(4, 0.25), marked) == 0.5
    assert token_f1(np.array([0.4, 0.2, 0.2, 0.2]), marked) == pytest.approx((1 + 1 / 3) / 2)


def test_rationales_that_mark_none_or_all_decide_nothing() -> None:
    assert decisive(review((0.4,) * 5)) is None
    assert decisive(review((1.0,) * 5)) is None
    assert decisive(review(None)) is None
    assert decisive(review((0.0, 0.0, 0.0, 0.5, 0.0))).tolist() == [False, False, False, True, False]


def test_entropy() -> None:
    assert normalised_entropy(np.full(7, 1 / 7)) == pytest.approx(1.0)
    assert normalised_entropy(np.array([1.0, 0.0, 0.0])) == 0.0
    assert normalised_entropy(np.array([0.5, 0.5, 0.0, 0.0])) == pytest.approx(0.5)
    assert math.isnan(normalised_entropy(np.ones(1)))


def test_correlation_with_frequency() -> None:
    assert frequency_correlation(np.array([0.1, 0.2, 0.7]), np.array([1.0, 5.0, 900.0])) == pytest.approx(1.0)
    # ranks 1 3 2 against 1 2 3: 1 − 6·2 / (3·8)
    assert frequency_correlation(np.array([0.1, 0.7, 0.2]), np.array([1.0, 5.0, 900.0])) == pytest.approx(0.5)
    assert math.isnan(frequency_correlation(np.array([0.5, 0.5]), np.array([1.0, 2.0])))


def test_comparison_counts_who_is_left_out_and_pairs_the_rest() -> None:
    examples = [review(), review(None), review((0.0, 1.0, 0.0, 0.0, 0.0)), Example("empty", "", 0, ())]
    spread, sharp = np.full(5, 0.2), np.array([0.05, 0.05, 0.05, 0.8, 0.05])
    before = focus_scores(examples, [spread] * 3 + [np.zeros(0)], flat_model, FREQUENCIES, (0.2,), seed=0)
    after = focus_scores(examples, [sharp] * 3 + [np.zeros(0)], flat_model, FREQUENCIES, (0.2,), seed=0)
    rows = {row.metric: row for row in compare_focus(before, after, HOW)}
    assert rows["auprc"].left_out == 2
    assert rows["auprc"].before.value == pytest.approx(0.2)
    # word 3 decisive: 1; word 1 decisive, tied with three others behind word 3: precision 1/5 at the tie
    assert rows["auprc"].after.value == pytest.approx((1 + 1 / 5) / 2)
    assert rows["auprc"].difference.count == 2
    assert rows["rare_mass"].left_out == 1
    assert (rows["rare_mass"].difference.value, rows["rare_mass"].difference.low) == pytest.approx((0.6, 0.6))
    assert rows["rare_mass"].chance_before == pytest.approx(0.2)


def test_a_metric_that_no_review_has_is_empty_and_not_an_error() -> None:
    found = scores_of([0.2] * 5, review(None))
    row: FocusComparison = next(row for row in compare_focus(found, None, HOW) if row.metric == "auprc")
    assert row.before.count == 0
    assert row.left_out == 1
    assert row.after is None
    nothing = focus_scores([], [], flat_model, FREQUENCIES, (0.2,), seed=0)
    assert all(row.before.count == 0 for row in compare_focus(nothing, nothing, HOW))


def test_focus_over_another_number_of_words_is_refused() -> None:
    with pytest.raises(AfaError, match="'r' has 5 words, but focus over 4"):
        scores_of([0.25] * 4)
    with pytest.raises(ValueError, match="focus for 0"):
        focus_scores([replace(review())], [], flat_model, FREQUENCIES, (0.2,), seed=0)
