"""Plausibility and distribution of the focus, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from afa_llm.errors import AfaError
from afa_llm.evaluation.estimates import Resampling
from afa_llm.evaluation.focus_metrics import METRICS
from afa_llm.evaluation.focus_quality import (
    FocusComparison,
    FocusScores,
    LeaveOneOut,
    compare_focus,
    focus_scores,
    frequency_correlation,
    normalised,
    normalised_entropy,
    rank_agreement,
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
    assert math.isnan(values["auprc_value_weighted"]) and math.isnan(values["leave_one_out_tau"])  # not asked for


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
    assert math.isnan(frequency_correlation(np.array([0.6, 0.4]), np.array([1.0, math.nan])))


def test_punctuation_has_no_frequency() -> None:
    """The full stop is never counted. Taken for the rarest word, it would turn this focus on common words around."""
    example = Example("r", "the dull film .", 0, ((0, 3), (4, 8), (9, 13), (14, 15)))
    frequencies = WordFrequencies({"the": 50, "dull": 2, "film": 9}, threshold=5)
    found = focus_scores([example], [np.array([0.3, 0.1, 0.2, 0.4])], flat_model, frequencies, (0.5,), seed=0)
    assert found.values["frequency_correlation"] == pytest.approx([1.0])


def test_comparison_counts_who_is_left_out_and_pairs_the_rest() -> None:
    examples = [review(), review(None), review((0.0, 1.0, 0.0, 0.0, 0.0)), Example("empty", "", 0, ())]
    spread, sharp = np.full(5, 0.2), np.array([0.05, 0.05, 0.05, 0.8, 0.05])
    before = focus_scores(examples, [spread] * 3 + [np.zeros(0)], flat_model, FREQUENCIES, (0.2,), seed=0)
    after = focus_scores(examples, [sharp] * 3 + [np.zeros(0)], flat_model, FREQUENCIES, (0.2,), seed=0)
    rows = {row.metric: row for row in compare_focus(before, after, list("abcd"), HOW)}
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
    row: FocusComparison = next(row for row in compare_focus(found, None, ["a"], HOW) if row.metric == "auprc")
    assert row.before.count == 0
    assert row.left_out == 1
    assert row.after is None
    nothing = focus_scores([], [], flat_model, FREQUENCIES, (0.2,), seed=0)
    assert all(row.before.count == 0 for row in compare_focus(nothing, nothing, [], HOW))


def test_focus_over_another_number_of_words_is_refused() -> None:
    with pytest.raises(AfaError, match="'r' has 5 words, but focus over 4"):
        scores_of([0.25] * 4)
    with pytest.raises(ValueError, match="focus for 0"):
        focus_scores([replace(review())], [], flat_model, FREQUENCIES, (0.2,), seed=0)


class Additive:
    """p(1) = 0.3 + Σ weight of the words still seen."""

    def __init__(self, *weights: float) -> None:
        self.weights = np.array(weights)

    def __call__(self, reviews, hidden):
        positive = np.array([0.3 + sum(w for i, w in enumerate(self.weights) if i not in words) for words in hidden])
        return np.log(np.stack([1 - positive, positive], axis=1))


def test_removals_as_shares_of_hiding_everything() -> None:
    # p = 0.8 clean and 0.3 empty; the first word of five is worth 0.2 and alone leaves 0.5
    model = Additive(0.2, 0.15, 0.1, 0.05, 0.0)
    found = focus_scores([review()], [np.array([5.0, 4, 3, 2, 1])], model, FREQUENCIES, (0.2,), seed=0)
    values = {name: value.item() for name, value in found.values.items()}
    assert values["comprehensiveness"] == pytest.approx(0.2)
    assert values["comprehensiveness_normalised"] == pytest.approx(0.2 / 0.5)
    assert values["sufficiency"] == pytest.approx(0.3)
    assert values["sufficiency_normalised"] == pytest.approx(0.3 / 0.5)
    # half of everything: a model that moves half as far has the same shares
    half = focus_scores(
        [review()], [np.array([5.0, 4, 3, 2, 1])], Additive(0.3, 0.075, 0.05, 0.025, 0.0), FREQUENCIES, (0.2,), seed=0
    )
    assert half.values["sufficiency_normalised"].item() == pytest.approx(0.15 / 0.45)


def test_normalised_is_cut_and_needs_something_to_share_out() -> None:
    assert normalised(0.2, 0.4) == pytest.approx(0.5)
    assert normalised(-0.1, 0.4) == 0.0
    assert normalised(0.5, 0.4) == 1.0
    assert math.isnan(normalised(0.01, 0.04))
    assert math.isnan(normalised(0.01, -0.2))
    assert math.isnan(normalised(math.nan, math.nan))


def test_words_of_like_frequency_take_the_rarity_out() -> None:
    """A model that any rare word upsets: random words look worse than the focus, matched ones do not."""
    text = "the the the the the the superb dismal"
    words = (*((4 * k, 4 * k + 3) for k in range(6)), (24, 30), (31, 37))
    example = Example("r", text, 1, words)
    frequencies = WordFrequencies({"the": 50, "superb": 2, "dismal": 2}, threshold=5)
    model = Additive(0, 0, 0, 0, 0, 0, 0.2, 0.2)
    focus = np.array([1.0, 1, 1, 1, 1, 1, 9, 2])
    found = focus_scores([example] * 40, [focus] * 40, model, frequencies, (0.125,), seed=0)
    means = {name: values.mean() for name, values in found.values.items()}
    assert means["comprehensiveness"] == pytest.approx(0.2)
    assert means["comprehensiveness_matched_gain"] == pytest.approx(0.0, abs=1e-12)
    assert means["sufficiency_matched_gain"] == pytest.approx(0.0, abs=1e-12)
    assert means["comprehensiveness_gain"] > 0.1  # random: one of the two in a quarter of the reviews, so 0.15


def test_agreement_with_leave_one_out_by_hand() -> None:
    # pairs of (focus, drop) ranks: 1-1, 2-3, 3-2, one of three pairs discordant: (2 − 1) / 3
    assert rank_agreement(np.array([0.1, 0.2, 0.7]), np.array([0.0, 0.3, 0.1])) == pytest.approx(1 / 3)
    # τ-b with a tie in the drops: 2 concordant, 0 discordant, 1 tied: 2 / √(3 · 2)
    assert rank_agreement(np.array([0.1, 0.2, 0.7]), np.array([0.0, 0.3, 0.3])) == pytest.approx(2 / math.sqrt(6))
    assert math.isnan(rank_agreement(np.array([0.5, 0.5]), np.array([0.1, 0.2])))
    assert math.isnan(rank_agreement(np.array([0.5, 0.4]), np.array([0.1, 0.1])))
    assert math.isnan(rank_agreement(np.array([0.5, 0.4]), None))


def test_leave_one_out_asks_only_the_first_short_reviews() -> None:
    model, focus = Additive(0.2, 0.15, 0.1, 0.05, 0.0), np.array([5.0, 4, 3, 2, 1])
    found = focus_scores(
        [review()] * 4, [focus] * 4, model, FREQUENCIES, (0.2,), seed=0, leave_one_out=LeaveOneOut(2, 5)
    )
    assert found.values["leave_one_out_tau"][:2] == pytest.approx([1.0, 1.0])
    assert np.isnan(found.values["leave_one_out_tau"][2:]).all()
    assert LeaveOneOut(3, 4).chosen([review()] * 3) == []
    assert LeaveOneOut(3, 60).chosen([Example("one", "a", 0, ((0, 1),)), review()]) == [1]


def test_the_value_weighted_focus_is_measured_beside_the_raw_one() -> None:
    model, raw, weighted = Additive(0.2, 0.0, 0.0, 0.0, 0.1), np.array([5.0, 4, 3, 2, 1]), np.array([1.0, 2, 3, 9, 5])
    found = focus_scores(
        [review()], [raw], model, FREQUENCIES, (0.2,), seed=0, weighted_N=[weighted], leave_one_out=LeaveOneOut(1)
    )
    values = {name: value.item() for name, value in found.values.items()}
    assert values["auprc"] == pytest.approx(1 / 4)  # word 3 is decisive and stands fourth
    assert values["auprc_value_weighted"] == pytest.approx(1.0)
    assert values["comprehensiveness"] == pytest.approx(0.2)
    assert values["comprehensiveness_value_weighted"] == pytest.approx(0.0, abs=1e-12)
    assert values["leave_one_out_tau"] != values["leave_one_out_tau_value_weighted"]
    assert all(len(values_N) == 1 for values_N in found.values.values())


def test_a_review_and_its_edit_are_no_two_draws() -> None:
    """Of 6 reviews that are told twice over, as of 12, the interval was too narrow."""
    once = [np.roll([0.6, 0.1, 0.1, 0.1, 0.1], k) for k in (0, 1, 2, 3, 3, 3)]
    spread = np.full(5, 0.2)

    def found(focus_N: list[np.ndarray], clusters: list[str]) -> dict[str, FocusComparison]:
        examples = [review()] * len(focus_N)
        before, after = (
            focus_scores(examples, each, flat_model, FREQUENCIES, (0.2,), seed=0)
            for each in ([spread] * len(focus_N), focus_N)
        )
        return {row.metric: row for row in compare_focus(before, after, clusters, HOW)}

    alone, paired = found(once, list("abcdef")), found(once * 2, list("abcdef") * 2)
    for phase in ("after", "difference"):
        one, two = (getattr(rows["auprc"], phase) for rows in (alone, paired))
        assert (two.value, two.low, two.high) == pytest.approx((one.value, one.low, one.high))
        assert (one.count, two.count) == (6, 12)
