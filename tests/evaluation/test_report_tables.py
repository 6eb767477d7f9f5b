"""Marks and cells of the report's tables."""

import pytest

from afa_llm.evaluation.report_tables import focus_tables, group_rows, headline_rows, mark, score_rows


def estimate(value: float | None, low: float | None = None, high: float | None = None, count: int = 9) -> dict:
    return {"value": value, "low": low, "high": high, "count": count}


@pytest.mark.parametrize(
    ("difference", "better", "expected"),
    [
        (estimate(0.2, 0.1, 0.3), "higher", "better"),
        (estimate(0.2, 0.1, 0.3), "lower", "worse"),
        (estimate(-0.2, -0.3, -0.1), "higher", "worse"),
        (estimate(-0.2, -0.3, -0.1), "lower", "better"),
        (estimate(0.2, -0.1, 0.3), "higher", "same"),
        (estimate(0.0, 0.0, 0.0), "higher", "same"),
        (estimate(0.2, 0.1, 0.3), "", "up"),
        (estimate(-0.2, -0.3, -0.1), "", "down"),
        (estimate(None), "higher", ""),
        (None, "higher", ""),
    ],
)
def test_marks(difference: dict | None, better: str, expected: str) -> None:
    assert mark(difference, better) == expected


def scores(accuracy: float) -> dict:
    return {
        "count": 9, "accuracy": estimate(accuracy, accuracy - 0.1, accuracy + 0.1), "auroc": 0.875, "macro_f1": 0.5,
        "brier": None, "ece": 0.1, "predicted_rate": [0.25, 0.75], "group_accuracy": {},
    }  # fmt: skip


def results(p_value: float) -> dict:
    comparison = {"difference": estimate(0.1, 0.02, 0.18), "test": {"won": 5, "lost": 1, "p_value": p_value}}
    row = {"data_set": "d", "template": "t", "calibration": "none", "before": scores(0.6), "after": scores(0.7)}
    entry = {"data_set": "d", "templates": ["t"], "before": estimate(0.6, 0.5, 0.7), "after": estimate(0.7, 0.6, 0.8)}
    return {
        "confidence": 0.95, "headline_calibration": "none", "train_template": "t",
        "scores": [{**row, "comparison": comparison}],
        "headline": [{**entry, "difference": estimate(0.1, 0.02, 0.18)}],
    }  # fmt: skip


def test_a_score_row() -> None:
    row = score_rows(results(0.03))[0]
    assert row.cells == (
        ("60.0", "70.0"),
        ("0.875", "0.875"),
        ("0.500", "0.500"),
        ("–", "–"),
        ("0.100", "0.100"),
        ("25 / 75", "25 / 75"),
    )
    assert (row.change, row.interval, row.won_lost, row.p, row.mark) == (
        "+10.0",
        "+2.0 to +18.0",
        "5 : 1",
        "0.03",
        "better",
    )
    assert score_rows(results(0.2))[0].mark == "same"  # the interval alone is not enough


def test_the_headline_axis_holds_every_whisker() -> None:
    rows, axis = headline_rows(results(0.03))
    assert [row.text for row in rows] == ["60.0 % → 70.0 %"]
    assert (rows[0].label, rows[0].change) == ("Accuracy", "+10.0")
    assert rows[0].before.low > 0
    assert rows[0].after.high < 100
    assert rows[0].before.at == pytest.approx(100 * (0.6 - axis.low) / (axis.high - axis.low), abs=0.01)
    assert headline_rows({"headline": []})[0] == []


def test_a_focus_row() -> None:
    metric = {
        "metric": "stop_word_mass", "before": estimate(0.5), "after": estimate(0.4), "chance_before": 0.6,
        "chance_after": 0.6, "left_out": 2, "difference": estimate(-0.1, -0.15, -0.05),
    }  # fmt: skip
    empty = {**metric, "metric": "auprc", "before": estimate(None)}
    ((data_set, reviews, rows),) = focus_tables(
        {"focus": [{"data_set": "d", "reviews": 11, "metrics": [metric, empty]}]}
    )
    assert (data_set, reviews, len(rows)) == ("d", 11, 1)
    assert (rows[0].mark, rows[0].word, rows[0].chance, rows[0].count) == (
        "better",
        "better",
        "0.600",
        "9 (2 left out)",
    )
    assert (rows[0].change, rows[0].interval) == ("−0.100", "−0.150 to −0.050")


@pytest.mark.parametrize(
    ("after", "left_out", "told"),
    [
        (estimate(0.4, count=9), 0, "9"),
        (estimate(0.4, count=9), 2, "9 (2 left out)"),
        (None, 2, "9 (2 left out)"),
        (estimate(0.4, count=7), 2, "9 → 7 (2 → 4 left out)"),
        (estimate(0.4, count=7), 0, "9 → 7 (0 → 2 left out)"),
        (estimate(0.4, count=11), 2, "9 → 11 (2 → 0 left out)"),
    ],
)
def test_a_measure_that_more_or_fewer_reviews_have_after_training(after: dict | None, left_out: int, told: str) -> None:
    """A normalised fall needs a model that moves at all: the reviews before training alone were told."""
    metric = {
        "metric": "auprc", "before": estimate(0.5), "after": after, "chance_before": 0.6, "chance_after": 0.6,
        "left_out": left_out,
    }  # fmt: skip
    ((_, _, (row,)),) = focus_tables({"focus": [{"data_set": "d", "reviews": 9 + left_out, "metrics": [metric]}]})
    assert row.count == told


def test_a_group_without_a_value_is_no_worst_group() -> None:
    found = results(0.03)
    groups = {"a": estimate(None, count=0), "b": estimate(0.6), "c": estimate(0.5)}
    found["scores"][0]["before"]["group_accuracy"] = groups
    found["scores"][0]["after"]["group_accuracy"] = {"a": estimate(0.9), "b": estimate(0.8), "c": estimate(None)}
    assert group_rows(found)[-1] == ("d", "t", "worst group", 9, "50.0", "80.0")
    found["scores"][0]["before"]["group_accuracy"] = {"a": estimate(None), "b": estimate(None)}
    assert group_rows(found)[-1] == ("d", "t", "worst group", 0, "–", "80.0")
    found["scores"][0]["after"] = None
    assert group_rows(found)[-1][-2:] == ("–", "")


def test_a_behavioural_test_is_no_worst_group_after_either() -> None:
    """It was left out of the groups before training alone."""
    found = results(0.03)
    for phase, b in (("before", 0.6), ("after", 0.8)):
        groups = {"a": estimate(0.9), "b": estimate(b), "INV names": estimate(0.0)}
        found["scores"][0][phase]["group_accuracy"] = groups
    assert group_rows(found)[-1] == ("d", "t", "worst group", 9, "60.0", "80.0")
