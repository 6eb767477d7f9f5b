"""Overlap with marked words, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from afa_llm.evaluation.plausibility import decisive, iou_f1, spans, token_f1, top_words
from afa_llm.records import Example


def marks(text: str) -> np.ndarray:
    """One character for each word: # is marked, . is not."""
    return np.array([character == "#" for character in text])


def review(rationale: tuple[float, ...] | None) -> Example:
    return Example("r", "The film is superb !", 1, ((0, 3), (4, 8), (9, 11), (12, 18), (19, 20)), rationale)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("..##.#", [(2, 4), (5, 6)]), ("###", [(0, 3)]), ("...", []), ("#.#", [(0, 1), (2, 3)]), ("", [])],
)
def test_spans(text: str, expected: list[tuple[int, int]]) -> None:
    assert spans(marks(text)) == expected


@pytest.mark.parametrize(
    ("chosen", "marked", "expected"),
    [
        ("..##..", "..##..", 1.0),
        ("..#...", "..##..", 1.0),  # 1 of 2: exactly one half is found
        ("..#...", "..###.", 0.0),  # 1 of 3
        (".###..", "..###.", 1.0),  # 2 shared of 4
        ("###...", "..###.", 0.0),  # 1 shared of 5
        ("#.##..", "..##..", 2 / 3),  # precision 1/2, recall 1
        ("..##..", "#.##.#", 1 / 2),  # precision 1, recall 1/3
        ("##....", "....##", 0.0),
        ("......", "..##..", 0.0),
    ],
)
def test_iou_f1_by_hand(chosen: str, marked: str, expected: float) -> None:
    assert iou_f1(marks(chosen), marks(marked)) == pytest.approx(expected)


def test_top_words() -> None:
    assert top_words(np.array([2, 0, 1]), 2).tolist() == [True, False, True]


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
    marked = decisive(review((0.0, 0.0, 0.0, 0.5, 0.0)))
    assert marked is not None and marked.tolist() == [False, False, False, True, False]
