"""Geometry of the benchmark's charts: the forest plot, and charts with a line for each arm or phase.

Line charts live in the box of evaluation.charts; the forest plot in percent of its width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afa_llm.evaluation.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Scale,
    Series,
    Tick,
    known,
    nice_ticks,
    rounded,
    short,
    svg_path,
)
from afa_llm.evaluation.verdict import p_number, points

STYLES = 16
"""Line styles of the style sheet (k0..k15), a colour and a dash each; more lines begin again."""


@dataclass(frozen=True)
class NamedLine:
    """One line: `path` is SVG, `style` the number of its colour and dash, `dots` its points."""

    name: str
    path: str
    style: int
    dots: tuple[tuple[float, float], ...]
    last: str


@dataclass(frozen=True)
class LinesChart:
    lines: tuple[NamedLine, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    level: float | None
    """Height of the line y = `level_at`."""


def lines_chart(
    named: Mapping[str, Series],
    styles: Mapping[str, int],
    level_at: float | None = None,
    beside: Sequence[Series] = (),
) -> LinesChart | None:
    """A line for each series on common axes; None where nothing is finite.

    `level_at`: a y that is marked. `beside`: series of the charts next to this one, which its axes hold too, so that
    heights can be compared over the charts.
    """
    kept = {name: _finite(series) for name, series in named.items()}
    kept = {name: series for name, series in kept.items() if series}
    if not kept:
        return None
    every = [point for series in [*kept.values(), *map(_finite, beside)] for point in series]
    x_scale = Scale.over([x for x, _ in every], LEFT, WIDTH - RIGHT, margin=0.0)
    levels = [] if level_at is None else [level_at]
    y_scale = Scale.over([*(y for _, y in every), *levels], HEIGHT - BOTTOM, TOP, margin=0.06)
    lines = []
    for name, series in kept.items():
        placed = [(rounded(x_scale(x)), rounded(y_scale(y))) for x, y in series]
        last = series[-1][1]
        lines.append(NamedLine(name, svg_path(placed), styles[name] % STYLES, tuple(placed), short(last)))
    return LinesChart(
        lines=tuple(lines),
        x_ticks=tuple(Tick(rounded(x_scale(x)), short(x)) for x in nice_ticks(x_scale.low, x_scale.high, 4)),
        y_ticks=tuple(Tick(rounded(y_scale(y)), short(y)) for y in nice_ticks(y_scale.low, y_scale.high, 3)),
        level=None if level_at is None else rounded(y_scale(level_at)),
    )


def _finite(series: Series) -> list[tuple[float, float]]:
    return [(x, y) for x, y in series if y is not None and known(y)]


@dataclass(frozen=True)
class ForestRow:
    """One comparison. Places in percent of the width; an interval that is not known is None."""

    label: str
    at: float
    seeds: tuple[float, float] | None
    reviews: tuple[float, float] | None
    unseen: tuple[float, float] | None
    stars: str
    text: str
    detail: str
    kind: str


@dataclass(frozen=True)
class ForestBlock:
    title: str
    rows: tuple[ForestRow, ...]


def forest(
    comparisons: Sequence[Mapping[str, Any]], titles: Mapping[str, str], confidence: float
) -> tuple[list[ForestBlock], Axis]:
    """Accuracy differences to the reference, a block for each evaluation set, all on one axis in points."""
    axis = _axis(comparisons)
    blocks: dict[str, list[ForestRow]] = {}
    for row in comparisons:
        blocks.setdefault(row["set"], []).append(_forest_row(row, titles, axis, confidence))
    return [ForestBlock(name, tuple(rows)) for name, rows in blocks.items()], axis


def difference_kind(row: Mapping[str, Any]) -> str:
    """better, worse or same: where the claim may be made at all (a star), else same."""
    if not row["stars"]:
        return "same"
    return "better" if row["over_seeds"]["value"] > 0 else "worse"


def _axis(comparisons: Sequence[Mapping[str, Any]]) -> Axis:
    """Symmetric to no end in particular, with 0 inside; intervals far wider than all values are cut off at the edge."""
    values = [0.0]
    for row in comparisons:
        values.append(row["over_seeds"]["value"])
        inner = row["over_reviews"] or row["over_seeds"]
        values += [value for value in (inner["low"], inner["high"]) if value is not None]
    reach = 1.25 * max(0.01, *(abs(value) for value in values))
    low = -reach if min(values) < 0 else -0.25 * reach
    high = reach if max(values) > 0 else 0.25 * reach
    bare = Axis(low, high, ())
    return Axis(low, high, tuple(Tick(bare.place(t), points(t, True)) for t in nice_ticks(low, high, 6)))


def _forest_row(row: Mapping[str, Any], titles: Mapping[str, str], axis: Axis, confidence: float) -> ForestRow:
    seeds, reviews, smallest = row["over_seeds"], row["over_reviews"], row["detectable"]
    over, shown = ("", seeds) if seeds["low"] is not None else (" over reviews", reviews)
    interval = f"{points(shown['low'], True)} to {points(shown['high'], True)}{over}" if shown else "no interval"
    p = "" if row["p_holm"] is None else f", Holm p {p_number(row['p_holm'])}"
    least = "" if smallest is None else "at least "
    return ForestRow(
        label=titles[row["arm"]],
        at=_inside(axis, seeds["value"]),
        seeds=_ends(axis, seeds),
        reviews=_ends(axis, reviews),
        unseen=None if smallest is None else (_inside(axis, -smallest), _inside(axis, smallest)),
        stars=row["stars"],
        text=points(seeds["value"], True),
        detail=f"{100 * confidence:g} %: {interval}{p}; detectable {least}{points(smallest)}",
        kind=difference_kind(row),
    )


def _ends(axis: Axis, estimate: Mapping[str, Any] | None) -> tuple[float, float] | None:
    if not estimate or estimate["low"] is None:
        return None
    return _inside(axis, estimate["low"]), _inside(axis, estimate["high"])


def _inside(axis: Axis, value: float) -> float:
    return min(100.0, max(0.0, axis.place(value))) if math.isfinite(value) else 50.0
