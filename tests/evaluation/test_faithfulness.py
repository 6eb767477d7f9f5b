"""Comprehensiveness and sufficiency on a model whose answers are known in closed form."""

from collections.abc import Sequence

import numpy as np
import pytest

from afa_llm.errors import AfaError
from afa_llm.evaluation.faithfulness import matched_order, removal_count, removal_scores


class AdditiveModel:
    """p(label 1) = base + Σ weight of the words still seen: every score can be added up by hand."""

    def __init__(self, weights: Sequence[Sequence[float]], base: float = 0.3) -> None:
        self.weights = [np.array(row, dtype=float) for row in weights]
        self.base = base
        self.queries: list[tuple[int, frozenset[int]]] = []
        self.calls = 0

    def __call__(self, reviews: Sequence[int], hidden: Sequence[frozenset[int]]) -> np.ndarray:
        self.calls += 1
        self.queries += list(zip(reviews, hidden, strict=True))
        positive = np.array(
            [
                self.base + sum(w for i, w in enumerate(self.weights[review]) if i not in words)
                for review, words in zip(reviews, hidden, strict=True)
            ]
        )
        return np.log(np.stack([1 - positive, positive], axis=1)) - 2.0  # not normalised over the labels


def test_by_hand() -> None:
    # 4 words; fractions 0.25 and 0.5 take 1 and 2 words. Focus ranks word 2, then 0; p(clean) = 0.3 + 0.4 = 0.7
    model = AdditiveModel([[0.1, 0.0, 0.3, 0.0]])
    found = removal_scores([np.array([0.3, 0.1, 0.5, 0.1])], model, (0.25, 0.5), seed=0)
    assert found.prediction_N.tolist() == [1]
    assert found.probability_NC == pytest.approx(np.array([[0.3, 0.7]]))
    assert found.focus.comprehensiveness_N == pytest.approx([(0.3 + 0.4) / 2])
    assert found.focus.sufficiency_N == pytest.approx([(0.1 + 0.0) / 2])


def test_scores_are_for_the_predicted_label() -> None:
    # p(1) = 0.2: label 0 is predicted with 0.8; without word 0 it has 0.6, with word 0 alone 0.9
    model = AdditiveModel([[-0.2, 0.1, 0.0, 0.0]])
    found = removal_scores([np.array([0.7, 0.1, 0.1, 0.1])], model, (0.25,), seed=0)
    assert found.prediction_N.tolist() == [0]
    assert found.focus.comprehensiveness_N == pytest.approx([0.8 - 0.6])
    assert found.focus.sufficiency_N == pytest.approx([0.8 - 0.9])


def test_the_whole_focus_on_the_deciding_word_beats_random_words() -> None:
    rng = np.random.default_rng(0)
    weights = [np.eye(20)[rng.integers(20)] * 0.5 for _ in range(60)]
    found = removal_scores([row + 0.01 for row in weights], AdditiveModel(weights, 0.4), (0.05,), seed=1)
    assert found.focus.comprehensiveness_N == pytest.approx(np.full(60, 0.5))
    assert found.focus.sufficiency_N == pytest.approx(np.zeros(60), abs=1e-12)
    # a random word out of 20 is the deciding one with probability 1/20
    assert found.random.comprehensiveness_N.mean() == pytest.approx(0.025, abs=0.05)
    assert found.random.sufficiency_N.mean() == pytest.approx(0.475, abs=0.05)


def test_a_flat_focus_scores_as_random_words_do() -> None:
    rng = np.random.default_rng(2)
    model = AdditiveModel(rng.uniform(0, 0.03, size=(10, 15)))
    found = removal_scores([np.full(15, 1 / 15)] * 10, model, (0.1, 0.5), seed=3)
    assert found.focus.comprehensiveness_N.tolist() == found.random.comprehensiveness_N.tolist()
    assert found.focus.sufficiency_N.tolist() == found.random.sufficiency_N.tolist()


def test_random_words_do_not_depend_on_the_focus_and_do_on_the_seed() -> None:
    weights = np.random.default_rng(4).uniform(0, 0.05, size=(5, 12))
    focus = [np.arange(1.0, 13), np.arange(12.0, 0, -1)]
    before, after = (removal_scores([f] * 5, AdditiveModel(weights), (0.2,), seed=0) for f in focus)
    other = removal_scores([focus[0]] * 5, AdditiveModel(weights), (0.2,), seed=1)
    assert before.random.comprehensiveness_N.tolist() == after.random.comprehensiveness_N.tolist()
    assert before.random.comprehensiveness_N.tolist() != other.random.comprehensiveness_N.tolist()


def test_everything_is_asked_at_once_and_each_set_of_words_once() -> None:
    model = AdditiveModel([[0.1, 0.2, 0.1]] * 4)
    removal_scores([np.array([0.2, 0.5, 0.3])] * 4, model, (0.01, 0.05, 0.1, 0.2, 0.5), seed=0)
    assert model.calls == 1
    assert len(set(model.queries)) == len(model.queries)
    # clean, all hidden, and for 1 and 2 words at most two sets each, hidden or kept
    assert len(model.queries) <= 4 * 8


def test_reviews_without_words_have_no_scores_and_one_word_is_enough() -> None:
    found = removal_scores([np.zeros(0), np.array([1.0])], AdditiveModel([[], [0.4]]), (0.1, 0.5), seed=0)
    assert np.isnan(found.focus.comprehensiveness_N).tolist() == [True, False]
    assert found.focus.comprehensiveness_N[1] == pytest.approx(0.4)
    assert found.focus.sufficiency_N[1] == pytest.approx(0.0)
    empty = removal_scores([], AdditiveModel([]), (0.1,), seed=0)
    assert len(empty.focus.comprehensiveness_N) == 0


@pytest.mark.parametrize(
    ("words", "fraction", "count"),
    [
        (100, 0.01, 1),
        (101, 0.01, 2),
        (3, 0.01, 1),
        (100, 0.07, 7),
        (10, 0.5, 5),
        (11, 0.5, 6),
        (1, 0.5, 1),
        (4, 1.0, 4),
    ],
)
def test_counts_are_rounded_up(words: int, fraction: float, count: int) -> None:
    assert removal_count(words, fraction) == count


@pytest.mark.parametrize("focus", [[0.5, np.nan], [0.5, -0.1], [0.0, 0.0]])
def test_focus_that_is_no_distribution_is_refused(focus: list[float]) -> None:
    with pytest.raises(AfaError, match="the focus of review 1"):
        removal_scores([np.ones(2), np.array(focus)], AdditiveModel([[0.1, 0.1]] * 2), (0.5,), seed=0)


def test_words_out_of_reach_name_the_setting() -> None:
    with pytest.raises(
        AfaError, match=r"the focus of review 0 is zero: attention.layers: .* sees no word of the review"
    ):
        removal_scores([np.zeros(3)], lambda reviews, hidden: np.zeros((len(reviews), 2)), [0.5], 0)


def test_nan_answers_are_refused_with_their_place() -> None:
    def broken(reviews: Sequence[int], hidden: Sequence[frozenset[int]]) -> np.ndarray:
        rows = np.zeros((len(reviews), 2))
        rows[[i for i, words in enumerate(hidden) if len(words) == 2]] = np.nan
        return rows

    with pytest.raises(AfaError, match="the first is review 0 with 2 words hidden"):
        removal_scores([np.ones(4)], broken, (0.5,), seed=0)


def test_hiding_everything_and_words_one_by_one() -> None:
    # p(1) = 0.3 + 0.1 + 0.3 = 0.7 clean; 0.3 where all are hidden: the predicted label then has 0.3
    model = AdditiveModel([[0.1, 0.0, 0.3], [0.2, 0.1, 0.0], []])
    focus = [np.array([0.2, 0.1, 0.7]), np.array([0.4, 0.5, 0.1]), np.zeros(0)]
    found = removal_scores(focus, model, (0.3,), seed=0, leave_one_out=[0])
    assert found.all_hidden_N[:2] == pytest.approx([0.4, 0.3])
    assert np.isnan(found.all_hidden_N[2])
    assert found.leave_one_out_N[0] == pytest.approx([0.1, 0.0, 0.3])
    assert found.leave_one_out_N[1] is None and found.leave_one_out_N[2] is None


def test_another_score_of_the_words_has_its_own_removals() -> None:
    model = AdditiveModel([[0.1, 0.0, 0.3]])
    focus, other = [np.array([0.5, 0.3, 0.2])], [np.array([0.2, 0.3, 0.5])]
    found = removal_scores(focus, model, (0.3,), seed=0, others={"other": other})
    assert found.focus.comprehensiveness_N == pytest.approx([0.1])
    assert found.others["other"].comprehensiveness_N == pytest.approx([0.3])
    assert found.others["other"].sufficiency_N == pytest.approx([0.1])
    with pytest.raises(AfaError, match="the focus of review 0"):
        removal_scores(focus, model, (0.3,), seed=0, others={"other": [np.array([0.2, np.nan, 0.5])]})


def test_matched_words_are_of_the_same_strata_and_otherwise_random() -> None:
    rng = np.random.default_rng(7)
    for _ in range(50):
        strata = rng.integers(0, 3, size=12).tolist()
        order, noise = rng.permutation(12), rng.random(12)
        matched = matched_order(order, strata, noise)
        assert sorted(matched.tolist()) == list(range(12))
        for count in range(13):
            assert sorted(strata[w] for w in matched[:count]) == sorted(strata[w] for w in order[:count])
    same = np.zeros(12, dtype=int).tolist()  # one stratum: the matched order is the random one
    assert matched_order(order, same, noise).tolist() == np.argsort(noise).tolist()


def test_a_word_alone_in_its_stratum_is_matched_by_itself() -> None:
    model = AdditiveModel([[0.4, 0.0, 0.0, 0.0]])
    found = removal_scores([np.array([0.7, 0.1, 0.1, 0.1])], model, (0.25,), seed=0, strata_N=[[1, 0, 0, 0]])
    assert found.matched.comprehensiveness_N == pytest.approx(found.focus.comprehensiveness_N)
    assert found.focus.comprehensiveness_N == pytest.approx([0.4])
