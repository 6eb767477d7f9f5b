"""Slices by training frequency, by hand."""

from __future__ import annotations

import pytest
from records import item

from afa_llm.data.words import split_words
from afa_llm.evaluation.comparison import compare
from afa_llm.evaluation.estimates import Resampling, wilson
from afa_llm.evaluation.slices import ORDER, slice_rows, slices_of
from afa_llm.evaluation.word_frequencies import WordFrequencies
from afa_llm.records import Example

HOW = Resampling(300, 0.95, 0)
FREQUENCIES = WordFrequencies({"the": 300, "film": 20, "is": 30, "superb": 2, "good": 70}, threshold=5)


def review(text: str, *decisive: str) -> Example:
    words = split_words(text)
    rationale = tuple(float(text[a:b] in decisive) for a, b in words) if decisive else None
    return Example("r", text, 1, words, rationale)


@pytest.mark.parametrize(
    ("example", "lexicon", "expected"),
    [
        (review("The film is good!", "good"), (), [("decisive", "not rare"), ("decisive", "64 to 255")]),
        (review("The film is good, superb!", "good", "superb"), (), [("decisive", "rare"), ("decisive", "1 to 3")]),
        (review("The film is Superb!"), ("superb",), [("decisive", "rare"), ("decisive", "1 to 3")]),
        (review("The film is good!"), ("superb",), []),
        (review("The film is good!", "good"), ("film",), [("decisive", "not rare"), ("decisive", "64 to 255")]),
    ],
)
def test_decisive_words(example: Example, lexicon: tuple[str, ...], expected: list[tuple[str, str]]) -> None:
    found = slices_of(example, FREQUENCIES, frozenset(lexicon))
    assert [each for each in found if each[0] == "decisive"] == expected


def test_the_rarest_word_of_all_is_no_punctuation() -> None:
    assert ("rarest", "16 to 63") in slices_of(review("The film is good ?!"), FREQUENCIES, frozenset())
    assert slices_of(review("The unheard"), FREQUENCIES, frozenset()) == (("rarest", "0"),)
    assert slices_of(review("?!"), FREQUENCIES, frozenset()) == ()
    assert slices_of(review("The film"), WordFrequencies({}, 0), frozenset()) == ()


def test_rows_by_hand() -> None:
    before = [item("a", 0.9), item("b", 0.1), item("c", 0.9), item("d", 0.9)]
    after = [item("a", 0.9), item("b", 0.9), item("c", 0.1), item("d", 0.9)]
    slices = {"a": [("decisive", "rare")], "b": [("decisive", "rare"), ("rarest", "0")], "c": [("rarest", "0")]}
    rare, unseen = slice_rows(before, after, slices, "none", HOW)
    assert (rare.by, rare.slice, unseen.by, unseen.slice) == ("decisive", "rare", "rarest", "0")
    assert rare.before == wilson(1, 2) and rare.after == wilson(2, 2)
    assert rare.difference and rare.difference.value == pytest.approx(0.5)
    assert unseen.before == wilson(1, 2) and unseen.after == wilson(1, 2)
    (alone, _) = slice_rows(before, None, slices, "none", HOW)
    assert alone.after is None and alone.difference is None
    assert len(set(ORDER)) == len(ORDER)


def test_reviews_that_belong_together_are_drawn_together() -> None:
    """An original and its edit share what they say: as two reviews they made the interval too narrow."""
    before, after = (
        [item(f"{k}{side}", turned[k % 3], pair=str(k)) for k in range(12) for side in "ab"]
        for turned in ((0.1, 0.1, 0.9), (0.9, 0.9, 0.1))
    )
    slices = {old.example_id: [("decisive", "rare")] for old in before}
    (row,) = slice_rows(before, after, slices, "none", HOW)
    assert row.difference == compare(before, after, "none", HOW).difference
