"""Rare words, stop words, punctuation: definitions by hand."""

import pytest

from afa_llm.data.word_forms import is_punctuation, normal_form
from afa_llm.evaluation.word_frequencies import WordFrequencies, bucket_name, bucket_of, is_stop_word
from afa_llm.records import Example


def review(text: str) -> Example:
    spans, start = [], 0
    for word in text.split():
        start = text.index(word, start)
        spans.append((start, start + len(word)))
        start += len(word)
    return Example("id", text, 0, tuple(spans))


# 20 running words: the 10, film 4, good 3, plot 2, lush 1; punctuation does not count
TRAINING = [review("the " * 10 + "film Film FILM, (film) good good! good plot plot lush . . . . . .")]


@pytest.mark.parametrize(
    ("quantile", "rare"),
    [
        (0.04, []),  # words seen once make up 1/20 already: threshold 1
        (0.05, []),
        (0.06, ["lush"]),  # up to count 2: 3/20
        (0.2, ["lush", "plot"]),  # up to count 3: 6/20
        (0.3, ["lush", "plot"]),
        (0.5, ["lush", "plot", "good"]),
        (0.9, ["lush", "plot", "good", "film"]),
    ],
)
def test_rare_words_make_up_less_than_the_quantile_of_running_words(quantile: float, rare: list[str]) -> None:
    frequencies = WordFrequencies.from_examples(TRAINING, quantile)
    assert frequencies.counts == {"the": 10, "film": 4, "good": 3, "plot": 2, "lush": 1}
    found = [word for word in frequencies.counts if frequencies.is_rare(word)]
    assert sorted(found) == sorted(rare)
    assert sum(frequencies.counts[word] for word in found) / 20 < quantile


def test_unseen_words_are_rare_and_punctuation_never() -> None:
    frequencies = WordFrequencies.from_examples(TRAINING, 0.05)
    assert frequencies.is_rare("obfuscating")
    assert frequencies.count("(FILM!)") == 4
    assert not frequencies.is_rare("?!")
    assert not WordFrequencies.from_examples([], 0.25).is_rare("anything")


@pytest.mark.parametrize(
    ("word", "form"), [("Great!!", "great"), ("(don’t", "don't"), ("STRASSE", "strasse"), ("...", "..."), ("x", "x")]
)
def test_normal_form(word: str, form: str) -> None:
    assert normal_form(word) == form


@pytest.mark.parametrize("word", [".", "--", "…", "“", "$", "\u200b", "`", ""])
def test_punctuation(word: str) -> None:
    assert is_punctuation(word)


@pytest.mark.parametrize("word", ["a", "1", "é", "好", "😀", "!a!", "❤️"])
def test_no_punctuation(word: str) -> None:
    assert not is_punctuation(word)


@pytest.mark.parametrize("word", ["The", "it's", "IT’S", "they've,", "'s", "of"])
def test_stop_words(word: str) -> None:
    assert is_stop_word(word)


@pytest.mark.parametrize("word", ["not", "never", "n't", "film", "film's", "s", "!", "without"])
def test_no_stop_words(word: str) -> None:
    assert not is_stop_word(word)


def test_buckets_are_a_factor_of_four_apart() -> None:
    starts = {0: 0, 1: 1, 3: 1, 4: 2, 15: 2, 16: 3, 63: 3, 64: 4, 255: 4, 256: 5, 10**6: 5}
    assert {count: bucket_of(count) for count in starts} == starts
    names = ["0", "1 to 3", "4 to 15", "16 to 63", "64 to 255", "256 and more"]
    assert [bucket_name(bucket) for bucket in range(6)] == names
    frequencies = WordFrequencies({"the": 50}, 1)
    assert [frequencies.bucket(word) for word in ("The", "new", ",")] == [3, 0, -1]
