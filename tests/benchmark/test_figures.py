"""Charts of a benchmark: places of points and ticks, axes shared by charts beside each other, what the forest tells."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from afa_llm.benchmark.figures import difference_kind, forest, lines_chart
from afa_llm.evaluation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

STYLES = {"low": 0, "high": 17}
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


def test_as_many_arms_as_the_recipes_have_look_unlike() -> None:
    """Of the fifteen arms of configs/benchmark_arms.yaml each shared its line with another one."""
    names = [str(number) for number in range(16)]
    chart = lines_chart({name: [(0, 1.0)] for name in names}, {name: place for place, name in enumerate(names)})
    assert chart is not None
    sheet = (resources.files("afa_llm") / "assets" / "report" / "benchmark.css").read_text(encoding="utf-8")
    looks = dict(re.findall(r"^\.(k\d+) (\{.*?\})", sheet.replace("} .", "}\n."), re.MULTILINE))
    assert len({looks[f"k{line.style}"] for line in chart.lines}) == 16


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


@pytest.mark.parametrize(
    ("smallest", "grey", "told"), [(0.01, True, "; detectable at least 1.0"), (None, False, "; detectable –")]
)
def test_the_forest_says_at_least_what_can_be_detected(smallest: float | None, grey: bool, told: str) -> None:
    estimate = {"value": 0.02, "low": -0.03, "high": 0.07, "count": 2}
    row = {"set": "films", "arm": "afa", "over_seeds": estimate, "over_reviews": estimate, "p_holm": None, "stars": ""}
    blocks, _ = forest([row | {"detectable": smallest}], {"afa": "AFA"}, 0.95)
    assert (blocks[0].rows[0].unseen is not None) == grey
    assert blocks[0].rows[0].detail.endswith(told)


@pytest.mark.parametrize(
    ("low", "high", "told"), [(None, None, "+1.0 to +3.0 over reviews;"), (-0.05, 0.09, "−5.0 to +9.0;")]
)
def test_the_forest_says_which_interval_it_tells(low: float | None, high: float | None, told: str) -> None:
    seeds = {"value": 0.02, "low": low, "high": high, "count": 2}
    reviews = {"value": 0.02, "low": 0.01, "high": 0.03, "count": 400}
    row = {"set": "films", "arm": "afa", "over_seeds": seeds, "over_reviews": reviews, "p_holm": None, "stars": ""}
    found = forest([row | {"detectable": None}], {"afa": "AFA"}, 0.95)[0][0].rows[0]
    assert (found.seeds is None) == (low is None)
    assert found.detail.startswith(f"95 %: {told}")


def test_only_claims_are_coloured() -> None:
    row = {"stars": "", "over_seeds": {"value": 0.5}}
    assert difference_kind(row) == "same"
    assert difference_kind(row | {"stars": "★"}) == "better"
    assert difference_kind({"stars": "★", "over_seeds": {"value": -0.5}}) == "worse"
