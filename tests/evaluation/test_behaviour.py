"""Which cases of behavioural tests pass, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from records import item

from afa_llm.errors import AfaError
from afa_llm.evaluation.behaviour import behaviour_rows, check_cases, passes
from afa_llm.evaluation.estimates import Resampling, wilson
from afa_llm.evaluation.prompted_sentiment import ItemRecord
from afa_llm.records import Example

HOW = Resampling(300, 0.95, 0)


def case(group: str, name: str, label: int, *positive: float) -> list[ItemRecord]:
    """The base, then its changes."""
    return [
        item(f"{name}/{k}", p, label, group=group, pair=name, side="changed" if k else "base")
        for k, p in enumerate(positive)
    ]


@pytest.mark.parametrize(
    ("kind", "label", "positive", "expected"),
    [
        ("MFT", 1, (0.6,), True),
        ("MFT", 0, (0.6,), False),
        ("INV", 1, (0.6, 0.9, 0.51), True),
        ("INV", 0, (0.6, 0.9, 0.51), True),  # wrong throughout: still invariant
        ("INV", 1, (0.6, 0.9, 0.49), False),
        ("DIR", 1, (0.6, 0.61), True),
        ("DIR", 1, (0.6, 0.6), False),
        ("DIR", 1, (0.6, 0.9, 0.59), False),
        ("DIR", 0, (0.6, 0.59), True),  # the label is negative: its probability rises
        ("DIR", 1, (0.998, 0.995), True),  # can't rise any further
        ("DIR", 1, (0.998, 0.98), False),
    ],
)
def test_passing(kind: str, label: int, positive: tuple[float, ...], expected: bool) -> None:
    assert passes(kind, case(f"{kind} x", "c", label, *positive), "none") is expected


def test_rows_by_hand() -> None:
    before = [
        *(item(f"m{k}", p, 1, group="MFT plain") for k, p in enumerate((0.9, 0.2, 0.8))),
        *case("INV names", "a", 1, 0.6, 0.7),
        *case("INV names", "b", 1, 0.6, 0.4),
        *case("DIR praise", "c", 1, 0.5, 0.7),
        *case("DIR praise", "d", 0, 0.5, 0.6),
        item("other", 0.9, 1, group="aligned"),
    ]
    after = [*before[:4], item("a/1", 0.1, 1, group="INV names", pair="a", side="changed"), *before[5:]]
    mft, inv, direction = behaviour_rows(before, after, "none", HOW)
    names = [(row.kind, row.test, row.cases) for row in (mft, inv, direction)]
    assert names == [("MFT", "plain", 3), ("INV", "names", 2), ("DIR", "praise", 2)]
    assert mft.before.pass_rate == wilson(2, 3) and mft.before.shift is None
    assert inv.before.pass_rate == wilson(1, 2) and inv.after and inv.after.pass_rate == wilson(0, 2)
    assert inv.before.shift and inv.before.shift.value == pytest.approx((0.1 + 0.2) / 2)
    assert inv.difference and inv.difference.value == pytest.approx(-0.5)
    assert inv.mcnemar and (inv.mcnemar.won, inv.mcnemar.lost) == (0, 1)
    assert direction.before.pass_rate == wilson(1, 2)
    assert direction.before.shift and direction.before.shift.value == pytest.approx((0.2 - 0.1) / 2)


def test_order_in_the_file_does_not_matter_and_single_bases_are_no_case() -> None:
    items = case("INV names", "a", 1, 0.6, 0.4)[::-1] + case("INV names", "b", 1, 0.6)
    (row,) = behaviour_rows(items, None, "none", HOW)
    assert row.cases == 1 and row.before.pass_rate.value == 0.0
    assert behaviour_rows([item("r", 0.5)], None, "none", HOW) == []


def test_a_case_whose_base_was_set_aside_is_none() -> None:
    items = case("INV names", "a", 1, 0.6, 0.4)[1:] + case("INV names", "b", 1, 0.6, 0.7)
    (row,) = behaviour_rows(items, None, "none", HOW)
    assert row.cases == 1 and row.before.pass_rate.value == 1.0


@pytest.mark.parametrize("sides", [("original", "edited"), ("base", "base")])
def test_a_case_without_one_base_is_refused(sides: tuple[str, str]) -> None:
    examples = [Example(f"r{k}", "fine", 1, (), None, "INV names", "a", side) for k, side in enumerate(sides)]
    with pytest.raises(AfaError, match="mine, case 'a' of test 'INV names': wants one review whose side is 'base'"):
        check_cases("mine", examples)
    check_cases("mine", [replace(example, group="other") for example in examples])
    check_cases(
        "mine", [replace(example, side=side) for example, side in zip(examples, ("changed", "base"), strict=True)]
    )


def test_every_review_of_an_mft_is_a_case_also_where_a_column_names_pairs() -> None:
    """Of a pair only the first review was looked at."""
    reviews = [item(f"m{k}", p, 1, group="MFT plain", pair=f"p{k // 2}") for k, p in enumerate((0.9, 0.2, 0.8, 0.1))]
    (row,) = behaviour_rows(reviews, reviews, "none", HOW)
    assert (row.cases, row.before.pass_rate, row.after and row.after.pass_rate) == (4, wilson(2, 4), wilson(2, 4))
