from itertools import pairwise

import pytest

from afa_llm.data.words import align_words, has_word, split_words


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in split_words(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A well-made film, don't miss!", ["A", "well-made", "film", ",", "don't", "miss", "!"]),
        ("rock'n'roll ’til well--made its'", ["rock'n'roll", "’", "til", "well", "--", "made", "its", "'"]),
        ("很好看 イイ 한국어 iPhone好", ["很", "好", "看", "イ", "イ", "한국어", "iPhone", "好"]),
        ("หนังดีมาก 10/10", ["ห", "นั", "ง", "ดี", "ม", "า", "ก", "10", "/", "10"]),
        ("ດີຫຼາຍ កុនល្អ ကောင်း", ["ດີ", "ຫຼ", "າ", "ຍ", "កុ", "ន", "ល្", "អ", "ကော", "င်း"]),
        ("👍🏽 wow 👨‍👩‍👧", ["👍🏽", "wow", "👨‍👩‍👧"]),
        ("cafe\u0301s नमस्ते", ["cafe\u0301s", "नमस्ते"]),
        ("{x}\n\r\n3.5/5 snake_case", ["{", "x", "}", "3", ".", "5", "/", "5", "snake", "_", "case"]),
        ("می\u200cخواهم a\x00b", ["می\u200cخواهم", "a\x00b"]),
        ("", []),
        (" \t\u3000\xa0\n", []),
        ("\u200b\x00\ufeff", []),
        ("Dull.<br /><br />Loved it<BR>br < 3", ["Dull", ".", "Loved", "it", "br", "<", "3"]),
        ("ok", ["ok"]),
    ],
)
def test_split_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_spans_are_in_order_and_leave_only_blanks() -> None:
    text = "Nested {json: [1, 2]} — “quotes”… and 'ticks' \u200b 👍👍 end" * 3
    spans = split_words(text)
    assert all(a < b <= c for (a, b), (c, _) in pairwise(spans))
    covered = {k for start, end in spans for k in range(start, end)}
    assert {text[k] for k in range(len(text)) if k not in covered} <= {" ", "\u200b"}


def test_a_long_word_is_one_word() -> None:
    assert split_words("x" * 1_000_000) == ((0, 1_000_000),)


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("I don't.", ["I", "do", "n't", "."], ["I", "do", "n't", "."]),
        ("It’s (so) good", ["It", "'s", "-LRB-", "so", "-rrb-", "good"], ["It", "’s", "(", "so", ")", "good"]),
        ('a "b" c', ["a", "``", "b", "''", "c"], ["a", '"', "b", '"', "c"]),
        ("1/2 — done…", ["1\\/2", "--", "done", "..."], ["1/2", "—", "done", "…"]),
        (":-) yes", [":--RRB-", "yes"], [":-)", "yes"]),
        ("well, crafted!", ["well", "crafted"], ["well", "crafted"]),
        ("the the the", ["the", "the", "the"], ["the", "the", "the"]),
        ("crafted, engaging", ["crafted,", "engaging"], ["crafted,", "engaging"]),
        ("Dull.<br /><br />Mine", ["Dull", ".", "Mine"], ["Dull", ".", "Mine"]),
        ("Dull.<br />Mine", ["Dull.<br", "/>Mine"], ["Dull.<br", "/>Mine"]),
    ],
)
def test_given_words_are_found(text: str, tokens: list[str], expected: list[str]) -> None:
    spans = align_words(text, tokens)
    assert spans is not None
    assert [text[start:end] for start, end in spans] == expected
    assert len(set(spans)) == len(spans)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a great film", ["a", "film"]),  # would skip a word of the review
        ("a great film", ["a", "great"]),  # the end of the review is missing
        ("a film", ["film", "a"]),
        ("a film", ["a", "", "film"]),
        ("a film", ["a", "film", "."]),
        ("great", ["grea"]),
    ],
)
def test_other_words_do_not_align(text: str, tokens: list[str]) -> None:
    assert align_words(text, tokens) is None


def test_no_words_align_with_an_empty_text() -> None:
    assert align_words("", []) == ()


def test_reviews_share_the_spans_of_their_words() -> None:
    """25,000 reviews of IMDB held 850 MB on every rank, nearly all of it pairs of numbers; now 150."""
    first, second = split_words("a dull film"), split_words("a good one ")
    assert [one is other for one, other in zip(first, second, strict=True)] == [True, True, False]


@pytest.mark.parametrize(
    "text", ["", " \n", "\u200b\x07", "<br />", "a", "!", "\u0301", "-", "戏", "\u200b👍", "<br>.", "<br"]
)
def test_a_text_has_a_word_where_one_is_split_off(text: str) -> None:
    assert has_word(text) == bool(split_words(text))
