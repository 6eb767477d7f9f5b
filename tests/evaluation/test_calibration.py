"""Calibrations by hand, and what they must leave alone."""

import numpy as np
import pytest

from afa_llm.errors import AfaError
from afa_llm.evaluation.calibration import CONTENT_FREE, calibrate, content_free_examples, domain_examples
from afa_llm.records import Example


def test_none_only_normalises() -> None:
    found = np.exp(calibrate("none", np.log([[0.03, 0.01]])))
    assert found == pytest.approx(np.array([[0.75, 0.25]]))


@pytest.mark.parametrize("method", ["contextual", "domain"])
def test_division_by_the_mean_probability_of_content_free_inputs(method: str) -> None:
    # inputs give 0.9 and 0.5 for label 0, mean 0.7 / 0.3; the review 0.6 / 0.4 becomes 0.6/0.7 : 0.4/0.3
    prior = np.log([[0.9, 0.1], [0.05, 0.05]])
    found = np.exp(calibrate(method, np.log([[0.6, 0.4]]), prior))
    first, second = 0.6 / 0.7, 0.4 / 0.3
    assert found == pytest.approx(np.array([[first, second]]) / (first + second))


def test_batch_divides_by_the_mean_probability_of_the_batch() -> None:
    prob = np.array([[0.88, 0.12], [0.82, 0.18], [0.7, 0.3]])
    quotient = prob / np.array([0.8, 0.2])
    found = np.exp(calibrate("batch", np.log(prob)))
    assert found == pytest.approx(quotient / quotient.sum(1, keepdims=True))
    assert found.argmax(1).tolist() == [0, 0, 1]


def test_a_model_that_only_knows_its_bias_answers_evenly() -> None:
    biased = np.log(np.tile([0.99, 0.01], (5, 1)))
    for method in ("contextual", "domain", "batch"):
        assert np.exp(calibrate(method, biased, biased[:2])) == pytest.approx(np.full((5, 2), 0.5))


def test_extreme_log_probabilities_stay_numbers() -> None:
    log_prob = np.array([[-1000.0, -2.0], [-3.0, -900.0]])
    for method in ("none", "contextual", "domain", "batch"):
        assert np.isfinite(calibrate(method, log_prob, log_prob)).all()


def test_empty_data_sets_pass_and_missing_priors_do_not() -> None:
    assert calibrate("batch", np.zeros((0, 2))).shape == (0, 2)
    assert calibrate("contextual", np.zeros((0, 2)), np.zeros((0, 2))).shape == (0, 2)
    with pytest.raises(AfaError, match="content-free"):
        calibrate("contextual", np.zeros((3, 2)), np.zeros((0, 2)))
    with pytest.raises(AfaError, match=r"evaluation\.calibrations"):
        calibrate("batsch", np.zeros((3, 2)))


def test_content_free_examples_have_their_words() -> None:
    examples = content_free_examples()
    assert tuple(example.text for example in examples) == CONTENT_FREE
    assert [len(example.words) for example in examples] == [1, 1, 0]


def test_domain_texts_are_of_the_reviews_words_and_mean_length_and_repeat() -> None:
    reviews = [
        Example("1", "good film", 1, ((0, 4), (5, 9))),
        Example("2", "bad bad bad bad plot twist", 0, ((0, 3), (4, 7), (8, 11), (12, 15), (16, 20), (21, 26))),
    ]
    texts = domain_examples(reviews, seed=4, count=300)
    assert {len(example.words) for example in texts} == {4}
    words = [example.text[start:end] for example in texts for start, end in example.words]
    assert set(words) == {"good", "film", "bad", "plot", "twist"}
    assert words.count("bad") / len(words) == pytest.approx(0.5, abs=0.05)  # 4 of 8; standard error 0.014
    assert texts == domain_examples(reviews, seed=4, count=300)
    assert texts != domain_examples(reviews, seed=5, count=300)
    assert domain_examples([Example("1", "", 1, ())], seed=0) == ()
