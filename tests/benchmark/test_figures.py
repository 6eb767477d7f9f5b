"""Line charts of a benchmark: places of points and ticks, and axes shared by charts beside each other."""

from __future__ import annotations

import pytest

from afa_llm.benchmark.figures import lines_chart
from afa_llm.evaluation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

STYLES = {"low": 0, "high": 9}
MARGIN = 0.06


def height(y: float, low: float, high: float) -> float:
    """Where y stands in the box, from the definition: the range with its margin, bottom to top."""
    room = MARGIN * (high - low)
    share = (y - low + room) / (high - low + 2 * room)
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def test_lines_share_one_chart() -> None:
    chart = lines_chart({"low": [(0, 1.0), (10, 2.0)], "high": [(5, 3.0), (10, None), (7, float("nan"))]}, STYLES)
    assert chart is not None
    low, high = chart.lines
    assert [x for x, _ in low.dots] == pytest.approx([LEFT, WIDTH - RIGHT])
    assert [y for _, y in low.dots] == pytest.approx([height(1.0, 1, 3), height(2.0, 1, 3)], abs=0.01)
    assert high.dots == (pytest.approx(((LEFT + WIDTH - RIGHT) / 2, height(3.0, 1, 3)), abs=0.01),)
    assert (low.style, high.style, high.last) == (0, 1, "3")


def test_charts_beside_each_other_have_the_same_axes() -> None:
    low, high = [(0.0, 0.5), (1.0, 1.0)], [(0.0, 1.0), (4.0, 2.5), (5.0, None)]
    charts = [lines_chart({name: series}, STYLES, 1.0, [low, high]) for name, series in (("low", low), ("high", high))]
    assert charts[0] is not None and charts[1] is not None
    for chart, series in zip(charts, (low, high), strict=True):
        assert [y for _, y in chart.lines[0].dots] == pytest.approx(
            [height(y, 0.5, 2.5) for _, y in series if y is not None], abs=0.01
        )
        assert chart.level == pytest.approx(height(1.0, 0.5, 2.5), abs=0.01)
    assert (charts[0].x_ticks, charts[0].y_ticks) == (charts[1].x_ticks, charts[1].y_ticks)
    assert charts[0].lines[0].dots[1][0] == charts[0].x_ticks[1].at


def test_nothing_to_draw() -> None:
    assert lines_chart({"low": [(0, None)]}, STYLES, beside=[[(0, 1.0)]]) is None
