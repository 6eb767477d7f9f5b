"""Chart geometry by hand."""

import math

import pytest

from afa_llm.evaluation.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    line_chart,
    nice_ticks,
    share_axis,
    short,
)
from afa_llm.evaluation.training_curves import training_curves


def places(path: str) -> list[tuple[float, float]]:
    return [
        tuple(map(float, pair.split(","))) for pair in path.replace("M", " ").replace("L", " ").replace("Z", "").split()
    ]


def test_corners() -> None:
    chart = line_chart([(10, 0.0), (20, 1.0)])
    (x0, y0), (x1, y1) = places(chart.line)
    assert (x0, x1) == (LEFT, WIDTH - RIGHT)
    # y grows downwards; 6 % of room on both sides
    inner = HEIGHT - BOTTOM - TOP
    assert y0 == pytest.approx(HEIGHT - BOTTOM - inner * 0.06 / 1.12, abs=0.01)
    assert y1 == pytest.approx(TOP + inner * 0.06 / 1.12, abs=0.01)
    assert chart.spread == ""


def test_gaps_break_the_line_and_lone_points_are_dots() -> None:
    chart = line_chart([(1, 1.0), (2, 2.0), (3, None), (4, 1.5), (5, math.nan), (6, 1.0), (7, 1.0)])
    assert chart.line.count("M") == 2
    assert len(chart.dots) == 1
    assert (chart.count, chart.gaps) == (5, 2)


def test_long_series_are_means_with_a_band() -> None:
    series = [(float(x), float(x % 2)) for x in range(4 * MOST_POINTS)]
    chart = line_chart(series)
    line = places(chart.line)
    assert len(line) == MOST_POINTS
    assert len({y for _, y in line}) == 1  # each bucket of four holds two zeros and two ones
    assert len({y for _, y in places(chart.spread)}) == 2


def test_alarm_bands_are_inside_the_chart() -> None:
    chart = line_chart([(1, 0.7), (2, 0.75)], alarms=(0.52, 0.98))
    upper, lower = chart.bands
    assert upper.top == TOP
    assert lower.top + lower.height == pytest.approx(HEIGHT - BOTTOM, abs=0.01)
    assert 0 < upper.height < 20
    assert all(upper.height + TOP < y < lower.top for _, y in places(chart.line))


def test_one_value_a_constant_and_nothing() -> None:
    assert len(line_chart([(1, 5.0)]).dots) == 1
    assert line_chart([(1, 0.0), (2, 0.0)]).line
    assert line_chart([]) is None
    assert line_chart([(1, None), (2, math.inf), (3, 1e308)]) is None


def test_ticks_and_numbers() -> None:
    assert nice_ticks(0.0, 1.0, 4) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert nice_ticks(-0.13, 0.31, 3) == [0.0, 0.2]
    assert nice_ticks(3, 3, 4) == [3]
    assert nice_ticks(0.51, 1.49, 3) == [0.6, 0.8, 1.0, 1.2, 1.4]  # every 0.5 would be 1.0 alone
    assert all(len(nice_ticks(low / 97, (low + wide) / 97, 3)) > 1 for low in range(97) for wide in range(1, 97))
    assert [short(x) for x in (0.00005, 0.1234, -2, 1234.6, 45600, 3.2e6, 7e9, None)] == [
        "5e−5", "0.123", "−2", "1235", "45.6k", "3.2M", "7G", "–",
    ]  # fmt: skip


def test_share_axis_holds_all_and_ends_at_0_and_1() -> None:
    axis = share_axis([0.995, 0.02])
    assert (axis.low, axis.high) == (0.0, 1.0)
    assert axis.whisker(0.5, 0.25, 1.0).at == 50.0
    narrow = share_axis([0.7])
    assert narrow.low < 0.7 < narrow.high


def test_known_curves_come_first_and_all_numbers_are_drawn() -> None:
    rows = [
        {
            "step": s,
            "zeta": 1.0,
            "adversary_auroc": 0.7,
            "task_loss": 1 / s,
            "note": "x",
            "ok": True,
            "huge": 10**400,
        }
        for s in (1, 2, 3)
    ]
    rows[1]["adversary_auroc"] = None
    found = training_curves(rows, (0.52, 0.98))
    assert {group: [curve.key for curve in curves] for group, curves in found.items()} == {
        "Task": ["task_loss"],
        "Feedback": ["adversary_auroc"],
        "Other": ["zeta"],
    }
    adversary = found["Feedback"][0].chart
    assert adversary.gaps == 1
    assert adversary.bands
    assert training_curves([], (0.5, 0.9)) == {}
