"""Which layers look at the words that decide: worked examples, and worlds where the right layers are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from rich.console import Console

from afa_llm.data.words import split_words
from afa_llm.errors import AfaError
from afa_llm.evaluation.estimates import Floats
from afa_llm.evaluation.layer_focus import agreement, answer_shifts, band_focus, best_band
from afa_llm.evaluation.layer_table import layer_table
from afa_llm.records import Example


def review(text: str, marked: Sequence[float] | None = None) -> Example:
    return Example(text, text, 0, split_words(text), tuple(marked) if marked else None)


def votes(reviews: Sequence[int], hidden: Sequence[frozenset[int]]) -> Floats:
    """Word 2 votes for label 1, word 0 against it; not normalised, as label words of a prompt are not."""
    logits = [2.0 * (2 not in words) - 1.0 * (0 not in words) for words in hidden]
    return np.array([[-3.0, -3.0 + logit] for logit in logits])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_shift_is_how_far_the_answer_moves() -> None:
    first, second = answer_shifts([3, 1], votes, 60, 0)
    clean = sigmoid(1)
    assert first == pytest.approx([sigmoid(2) - clean, 0, clean - sigmoid(-1)])  # either way counts
    assert second == pytest.approx([sigmoid(2) - clean])


def test_of_a_long_review_some_words_are_asked_about() -> None:
    asked: list[int] = []

    def counted(reviews: Sequence[int], hidden: Sequence[frozenset[int]]) -> Floats:
        asked.extend(next(iter(words)) for words in hidden if words)
        return votes(reviews, hidden)

    (found,) = answer_shifts([50], counted, 20, 0)
    assert len(set(asked)) == 20
    assert sorted(np.flatnonzero(np.isfinite(found))) == sorted(asked)
    assert [answer_shifts([50], votes, 20, seed)[0].tolist() for seed in (0, 0)] == [
        pytest.approx(found.tolist(), nan_ok=True)
    ] * 2
    assert np.isfinite(answer_shifts([50], votes, 20, 1)[0]).tolist() != np.isfinite(found).tolist()


def test_lift_stop_words_and_auprc_by_hand() -> None:
    examples = [review("the film drags", [0, 0, 1]), review("a gem", None)]
    focus = [np.array([[0.2, 0.2, 0.6], [0.5, 0.4, 0.1]]), np.array([[0.25, 0.75], [0.5, 0.5]])]
    shift = [np.array([0.0, 0.1, 0.5]), np.array([0.0, 0.2])]
    top = band_focus(examples, focus, shift, 0, 0)
    even = 0.6 / 3 + 0.2 / 2
    assert top.lift == pytest.approx((0.2 * 0.1 + 0.6 * 0.5 + 0.75 * 0.2) / even)
    assert top.stop_words == pytest.approx((0.2 + 0.25) / 2)
    assert top.auprc == pytest.approx(1.0)  # of the one review that has marks
    assert band_focus(examples, focus, shift, 1, 1).auprc == pytest.approx(1 / 3)
    wordy = band_focus([review("it is dull")], [np.array([[0.1, 0.3, 0.6]])], [np.array([0.0, 0.0, 0.1])], 0, 0)
    assert wordy.stop_words == pytest.approx(0.4)
    both = band_focus(examples, focus, shift, 0, 1)
    assert both.lift == pytest.approx((0.3 * 0.1 + 0.35 * 0.5 + 0.625 * 0.2) / even)
    assert both.depth == 2


def test_words_that_were_not_asked_about_do_not_bias_the_lift() -> None:
    """Half of the words unknown, drawn evenly: on average over the draws the lift is that of all words."""
    rng = np.random.default_rng(0)
    focus, shift = [rng.dirichlet(np.ones(10))[None]], rng.random(10)
    example, found = review(" ".join("abcdefghij")), []
    for _ in range(4000):
        part = np.where(np.isin(np.arange(10), rng.permutation(10)[:5]), shift, np.nan)
        found.append(band_focus([example], focus, [part], 0, 0).lift * np.nanmean(part))
    assert np.mean(found) == pytest.approx(float(focus[0][0] @ shift), rel=0.02)


def world(
    deciding: Sequence[int], reviews: int = 40, layers: int = 6
) -> tuple[list[Example], list[Floats], list[Floats]]:
    """One word of eight decides; the layers `deciding` look at it more than at others, each with noise of its own."""
    rng = np.random.default_rng(3)
    examples, focus, shift = [], [], []
    for _ in range(reviews):
        key = int(rng.integers(8))
        logits = rng.normal(0, 0.3, (layers, 8))
        logits[list(deciding), key] += 2
        focus.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
        shift.append(np.where(np.arange(8) == key, 0.5, 0.02))
        examples.append(review("one two three four five six seven eight"))
    return examples, focus, shift


def test_the_band_that_decides_is_found_whole() -> None:
    best, elsewhere = best_band(*world([2, 3, 4]))
    assert (best.first, best.last) == (2, 4)
    assert elsewhere > 2


def test_a_weak_layer_between_strong_ones_is_bridged_and_weak_ones_beside_are_not() -> None:
    """Lifts 1, 1.1, 2, 1.4, 2, 1.1 of six layers: half height is 1.5, and 1.4 costs less than 2 adds."""
    lifts = np.array([1.0, 1.1, 2.0, 1.4, 2.0, 1.1])
    focus_LW = np.stack([lifts / 2, 1 - lifts / 2], axis=1)  # of two words the first alone decides
    best, _ = best_band([review("a b")] * 2, [focus_LW] * 2, [np.array([1.0, 0.0])] * 2)
    assert (best.first, best.last) == (2, 4)
    assert best.lift == pytest.approx(1.8)


@pytest.mark.parametrize(
    ("lifts", "band"),
    [
        # The best quarter of eight has a mean of 1.65: half height is 1.325 (from 1.9 alone it would be 1.45).
        ([1.0, 1.3, 1.4, 1.4, 1.9, 1.4, 1.0, 1.0], (2, 5)),
        # Of fewer than eight it is the highest: half height is 1.3.
        ([1.0, 1.6, 1.2], (1, 1)),
    ],
)
def test_half_height_is_measured_from_the_best_quarter(lifts: list[float], band: tuple[int, int]) -> None:
    share_L = np.array(lifts) / 2
    focus_LW = np.stack([share_L, 1 - share_L], axis=1)  # of two words the first alone decides
    best, _ = best_band([review("a b")] * 2, [focus_LW] * 2, [np.array([1.0, 0.0])] * 2)
    assert (best.first, best.last) == band


def test_a_single_layer_is_found_too() -> None:
    best, _ = best_band(*world([4]))
    assert (best.first, best.last) == (4, 4)


def test_what_the_choice_is_worth_is_judged_on_other_reviews() -> None:
    """Layer 1 looks at the right word in every second review, layer 4 in the others: on the reviews of its choice
    either half finds a layer, on the others that layer knows nothing."""
    examples, focus, shift = world([])
    for n, (focus_LW, shift_W) in enumerate(zip(focus, shift, strict=True)):
        focus_LW[:] = 1 / 8
        focus_LW[1 if n % 2 else 4] = np.where(shift_W > 0.1, 0.65, 0.05)
    best, elsewhere = best_band(examples, focus, shift)
    assert elsewhere == pytest.approx(1)
    assert best.lift > 1.5


def test_what_the_choice_is_worth_by_hand() -> None:
    """Two reviews: each chooses for the other. The first would name layer 0, the second layer 1."""
    focus = [np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.3, 0.7], [0.8, 0.2]])]
    _, elsewhere = best_band([review("a b")] * 2, focus, [np.array([0.4, 0.0]), np.array([0.2, 0.0])])
    assert elsewhere == pytest.approx((0.4 * 0.4 + 0.3 * 0.2) / (0.2 + 0.1))


def test_agreement_by_hand() -> None:
    """Two reviews. Lifts of the first 1.8 and 1, of the second 1.4 and 1.4, of both together 1.72 and 1.08: layer 0 is
    named, and by three of the four equally likely draws too; the fourth (the second review twice) names both layers."""
    focus = [np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([[0.7, 0.3], [0.7, 0.3]])]
    shift = [np.array([0.4, 0.0]), np.array([0.1, 0.0])]
    assert agreement(focus, shift, draws=4000) == pytest.approx((3 + 1 / 2) / 4, abs=0.02)
    assert agreement(focus, shift, draws=50) == agreement(focus, shift, draws=50)
    assert agreement(focus, shift, draws=50, seed=1) != agreement(focus, shift, draws=50)


def test_agreement_is_whole_where_the_reviews_agree_and_low_where_none_knows_more() -> None:
    _, focus, shift = world([2, 3, 4])
    assert agreement(focus, shift) == 1
    _, focus, shift = world([])
    assert agreement(focus, shift) < 0.7


def test_draws_in_which_no_answer_moves_do_not_count() -> None:
    focus = [np.array([[0.5, 0.5], [0.9, 0.1]])] * 2
    assert agreement(focus, [np.array([0.4, 0.0]), np.zeros(2)]) == 1
    assert math.isnan(agreement(focus, [np.zeros(2)] * 2))


def printed(examples: list[Example], focus: list[Floats], shift: list[Floats]) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        for line in layer_table(examples, focus, shift):
            console.print(line, soft_wrap=isinstance(line, str))
    return capture.get()


def test_what_is_printed() -> None:
    said = printed(*world([2, 3, 4]))
    assert said.splitlines()[-1] == "attention.layers=[2, 3, 4]"
    assert "drawn anew would name, 100 % are the same." in said
    assert "AUPRC" not in said  # nothing is marked
    examples, focus, shift = world([2, 3, 4])
    examples[0] = review(examples[0].text, [1, 0, 0, 0, 0, 0, 0, 0])
    assert "AUPRC" in printed(examples, focus, shift)


def test_layers_that_know_nothing_are_not_named() -> None:
    examples, focus, shift = world([2])
    blind = [np.full_like(each, 1 / 8) for each in focus]
    for each, moved in zip(blind, shift, strict=True):
        each[:, int(moved.argmax())] = 0.01  # they look away from the word that decides
    said = printed(examples, blind, shift)
    assert "No layer's focus does better than chance" in said
    assert "attention.layers" not in said


def test_answers_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(AfaError, match="not numbers"):
        answer_shifts([2], lambda reviews, hidden: np.full((len(hidden), 2), np.nan), 60, 0)


def test_answers_that_never_move_judge_no_layer() -> None:
    examples, focus, shift = world([2])
    still = [np.zeros_like(each) for each in shift]
    assert math.isnan(best_band(examples, focus, still)[0].lift)
    said = printed(examples, focus, still)
    assert "No layer's focus can be judged" in said
    assert "attention.layers" not in said
