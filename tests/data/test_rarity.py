"""How rare a word is among the training reviews."""

from __future__ import annotations

import math

import pytest

from afa_llm.data.rarity import Rarity
from afa_llm.data.words import split_words
from afa_llm.records import Example


def among(*texts: str) -> Rarity:
    return Rarity.among(Example(str(n), text, 0, split_words(text)) for n, text in enumerate(texts))


def test_worked_numbers() -> None:
    rarity = among("The soup was the best.", "the bread", "The tea; the, the best", "the cake")
    assert rarity.of("the") == rarity.of("The") == 0.0
    assert rarity.of("soup") == rarity.of("never seen") == 1.0
    assert rarity.of("Best") == pytest.approx(math.log(4 / 2) / math.log(4)) == 0.5


def test_a_word_counts_once_a_review_however_often_it_stands_there() -> None:
    assert among("good good good", "bad", "so", "so").of("good") == 1.0


@pytest.mark.parametrize("mark", [".", ";", "--", "$"])
def test_punctuation_is_never_rare(mark: str) -> None:
    assert among(f"good {mark}", "bad", "so").of(mark) == 0.0


@pytest.mark.parametrize("texts", [(), ("one review",)])
def test_without_reviews_to_compare_nothing_is_rare(texts: tuple[str, ...]) -> None:
    assert among(*texts).of("one") == 0.0
