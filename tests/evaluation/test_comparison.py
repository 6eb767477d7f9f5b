"""Items are paired by id, never by position, and what does not pair is an error."""

from dataclasses import replace

import pytest

from afa_llm.errors import AfaError
from afa_llm.evaluation.comparison import compare, differences_per_review, headline
from afa_llm.evaluation.estimates import Resampling
from afa_llm.evaluation.prompted_sentiment import ItemRecord

HOW = Resampling(samples=400, confidence=0.95, seed=0)


def records(right: str, template: str = "t", phase: str = "before") -> list[ItemRecord]:
    """One record per character: 1 answered rightly, 0 wrongly."""
    return [
        ItemRecord(
            example_id=f"id-{n}", data_set="d", template=template, phase=phase, label=0, log_prob=(-1.0, -1.0),
            probability={"none": (0.5, 0.5)}, prediction={"none": 1 - int(mark)}, adapter_version=0, group="", text="x",
        )
        for n, mark in enumerate(right)
    ]  # fmt: skip


def test_compare_counts_won_and_lost_whatever_the_order() -> None:
    before, after = records("110000000"), records("011111000", phase="after")
    for shuffled in (after, after[::-1]):
        found = compare(before, shuffled, "none", HOW)
        assert (found.test.won, found.test.lost) == (4, 1)
        assert found.difference.value == pytest.approx(3 / 9)
        assert found.test.p_value == pytest.approx(0.375)  # 2 · (1 + 5) / 32


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda items: items[:-1], "1 stand on one side only, such as 'id-2'"),
        (lambda items: [*items, replace(items[0], example_id="new")], "such as 'new'"),
        (lambda items: [*items, items[0]], "stands twice"),
        (lambda items: [replace(items[0], label=1), *items[1:]], "another label"),
        (lambda items: [replace(items[0], text="y"), *items[1:]], "another text"),
        (lambda items: [replace(item, template="u") for item in items], "another template"),
    ],
)
def test_items_that_do_not_pair_are_an_error(spoil, message: str) -> None:
    with pytest.raises(AfaError, match=message):
        compare(records("101"), spoil(records("101", phase="after")), "none", HOW)


def test_headline_averages_over_templates() -> None:
    before = records("1100", "t") + records("1000", "u")
    after = records("1110", "t", "after") + records("1010", "u", "after")
    found = headline(before, after, "none", HOW)
    assert found.templates == ("t", "u")
    assert found.before.value == pytest.approx(3 / 8)
    assert found.after is not None
    assert found.after.value == pytest.approx(5 / 8)
    assert found.difference is not None
    assert found.difference.value == pytest.approx(1 / 4)
    assert found.difference.count == 4  # reviews, not answers
    assert (found.won, found.lost) == (1, 0)
    assert found.p_value == 1.0  # one review changed: ± is as likely
    assert differences_per_review(before, after, "none").tolist() == [0.0, 0.0, 1.0, 0.0]


def test_headline_of_one_template_is_mcnemar() -> None:
    before, after = records("1100000000"), records("0111111100", phase="after")
    one, test = headline(before, after, "none", HOW), compare(before, after, "none", HOW)
    assert one.p_value == pytest.approx(test.test.p_value)
    assert one.difference == test.difference
    assert (one.won, one.lost) == (test.test.won, test.test.lost)


def test_reviews_missing_under_a_template_are_left_out_and_counted() -> None:
    found = headline(records("111", "t") + records("10", "u"), None, "none", HOW)
    assert found.left_out == 1
    assert found.before.value == pytest.approx(3 / 4)
    assert found.after is None


def test_a_template_measured_in_one_phase_only_is_an_error() -> None:
    with pytest.raises(AfaError, match="one side only"):
        headline(records("11", "t"), records("11", "t", "after") + records("11", "u", "after"), "none", HOW)
    with pytest.raises(AfaError, match="one side only"):
        headline(records("11", "t") + records("11", "u"), records("11", "t", "after"), "none", HOW)


def test_nothing_measured() -> None:
    found = headline([], [], "none", HOW)
    assert found.before.count == 0
    assert found.p_value == 1.0
    assert compare([], [], "none", HOW).test.won == 0
