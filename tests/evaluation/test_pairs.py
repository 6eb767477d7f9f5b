"""Pairs by hand: all right, by side, before and after."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from records import item

from afa_llm.evaluation.comparison import compare, headline
from afa_llm.evaluation.estimates import Resampling, wilson
from afa_llm.evaluation.pairs import complete_pairs, consistent, in_order, pair_row
from afa_llm.evaluation.prompted_sentiment import ItemRecord

HOW = Resampling(500, 0.95, 0)


def answers(*right: int) -> list[ItemRecord]:
    """Reviews in order, pairs a, b and c of two, one alone in d, one without: is each right?"""
    places = [("a", "original"), ("a", "edited"), ("b", "original"), ("b", "edited")]
    places += [("c", "original"), ("c", "edited"), ("d", "original"), ("", "")]
    return [
        item(f"r{k}", 0.9 if ok else 0.1, 1, pair=pair, side=side)
        for k, (ok, (pair, side)) in enumerate(zip(right, places, strict=True))
    ]


BEFORE = answers(1, 1, 1, 0, 0, 0, 1, 1)
AFTER = answers(1, 1, 1, 1, 0, 1, 0, 0)


def test_by_hand() -> None:
    row = pair_row(BEFORE, AFTER, "none", HOW)
    assert row and row.after and row.comparison
    assert (row.pairs, row.left_out) == (3, 2)
    assert row.before.consistency == wilson(1, 3)
    assert row.after.consistency == wilson(2, 3)
    assert row.before.accuracy.value == pytest.approx(3 / 6)
    assert row.before.by_side == {"original": wilson(2, 3), "edited": wilson(1, 3)}
    assert row.after.by_side == {"original": wilson(2, 3), "edited": wilson(3, 3)}
    assert row.comparison.consistency.value == pytest.approx(1 / 3)
    assert (row.comparison.test.won, row.comparison.test.lost) == (1, 0)
    assert row.comparison.accuracy.value == pytest.approx(2 / 6)


def test_order_by_hand() -> None:
    """Both answered "positive", but the positive one more surely: not consistent, in order. Equal odds: half."""
    places = [("a", 1, 0.9), ("a", 0, 0.7), ("b", 0, 0.8), ("b", 1, 0.6), ("c", 1, 0.3), ("c", 0, 0.3), ("d", 1, 0.9)]
    items = [item(f"r{k}", positive, label, pair=pair) for k, (pair, label, positive) in enumerate(places)]
    assert in_order(items, "none").tolist() == [1.0, 0.0, 0.5]
    row = pair_row(items, None, "none", HOW)
    assert row and row.before.in_order.value == pytest.approx(0.5)
    assert (row.before.consistency.value, row.before.in_order.count) == (0.0, 3)


def test_order_knows_no_threshold_and_no_limit_of_confidence() -> None:
    near, nearer = 1 - 1e-16, 1.0  # p of class 0 is 1e-16 and 0
    assert in_order([item("r", nearer, 1, pair="a"), item("s", near, 0, pair="a")], "none").tolist() == [1.0]
    assert in_order([item("r", near, 1, pair="a"), item("s", nearer, 0, pair="a")], "none").tolist() == [0.0]


def test_order_in_sets_of_several_and_of_one_label() -> None:
    """Of a set with two positive and one negative review two pairs count; reviews of one label have no order."""
    kinds = [("set", 1, 0.9), ("set", 1, 0.2), ("set", 0, 0.4), ("same", 1, 0.9), ("same", 1, 0.1)]
    items = [item(f"r{k}", positive, label, pair=pair) for k, (pair, label, positive) in enumerate(kinds)]
    found = in_order(items, "none")
    assert found[0] == 0.5 and math.isnan(found[1])
    row = pair_row(items, [replace(each, phase="after") for each in items], "none", HOW)
    assert row and row.comparison and (row.before.in_order.value, row.before.in_order.count) == (0.5, 1)
    assert row.comparison.in_order.value == 0.0
    none = pair_row(items[3:], None, "none", HOW)
    assert none and math.isnan(none.before.in_order.value)


def test_sets_of_more_than_two_need_all() -> None:
    items = [item(f"r{k}", positive, pair="set") for k, positive in enumerate((0.9, 0.8, 0.4))]
    assert consistent(items, "none").tolist() == [False]
    assert consistent(items[:2], "none").tolist() == [True]


def test_reviews_alone_are_no_pair() -> None:
    assert list(complete_pairs(BEFORE)) == ["a", "b", "c"]
    assert pair_row([item("r", 0.9)], None, "none", HOW) is None
    assert pair_row(BEFORE[-2:], None, "none", HOW) is None
    alone = pair_row(BEFORE, None, "none", HOW)
    assert alone and alone.after is None and alone.comparison is None


def test_headline_and_comparison_keep_pairs_together() -> None:
    """Ten pairs whose reviews always change together: no more evidence than ten reviews."""
    before = [item(f"{k}{s}", 0.1, pair=f"p{k}") for k in range(10) for s in "ab"]
    after = [item(f"{k}{s}", 0.9 if k < 6 else 0.1, pair=f"p{k}") for k in range(10) for s in "ab"]
    single = compare(before[::2], after[::2], "none", HOW)
    both = compare(before, after, "none", HOW)
    assert both.test.p_value == pytest.approx(single.test.p_value) == pytest.approx(2 * 0.5**6)
    assert (both.test.won, both.test.lost) == (12, 0)
    assert (both.difference.low, both.difference.high) == (single.difference.low, single.difference.high)
    assert both.detectable == pytest.approx(single.detectable, nan_ok=True)
    found, other = headline(before, after, "none", HOW), headline(before[::2], after[::2], "none", HOW)
    assert found.p_value == pytest.approx(other.p_value)
    unpaired = [replace(each, pair="") for each in before], [replace(each, pair="") for each in after]
    assert compare(*unpaired, "none", HOW).test.p_value == pytest.approx(2 * 0.5**12)
