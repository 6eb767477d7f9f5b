"""Geometry of the report's charts; the template draws it. No pixel leaves this module without a number behind it.

Line charts live in a box of WIDTH × HEIGHT units; dot-and-whisker charts in percent of their width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 8.0, 8.0, 22.0
MOST_POINTS = 240
"""A longer series is drawn as the mean of this many buckets, with a band from least to most."""

Series = Sequence[tuple[float, float | None]]
"""(x, y); y None or not finite is a gap."""


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Band:
    """A horizontal stripe, top edge and height."""

    top: float
    height: float


@dataclass(frozen=True)
class LineChart:
    """`line`, `spread`: SVG path data; `dots`: points alone between gaps; `zero`: height of y = 0."""

    line: str
    spread: str
    dots: tuple[tuple[float, float], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bands: tuple[Band, ...]
    zero: float | None
    last: str
    count: int
    gaps: int


def line_chart(series: Series, alarms: tuple[float, float] | None = None) -> LineChart | None:
    """A chart of the series in order of x; none where no y is finite. `alarms`: y below and above which is shaded."""
    ordered = sorted(series, key=lambda point: point[0])
    seen = [y for _, y in ordered if y is not None and known(y)]
    if not seen:
        return None
    buckets = _buckets(ordered)
    x_scale = Scale.over([x for x, _ in ordered], LEFT, WIDTH - RIGHT, margin=0.0)
    y_scale = Scale.over([*seen, *(alarms or ())], HEIGHT - BOTTOM, TOP, margin=0.06)
    runs = _runs(buckets)
    return LineChart(
        line=" ".join(svg_path([(x_scale(x), y_scale(y)) for x, y, _, _ in run]) for run in runs if len(run) > 1),
        spread=" ".join(
            _outline(run, x_scale, y_scale) for run in runs if len(run) > 1 and len(ordered) > len(buckets)
        ),
        dots=tuple((rounded(x_scale(run[0][0])), rounded(y_scale(run[0][1]))) for run in runs if len(run) == 1),
        x_ticks=tuple(Tick(rounded(x_scale(x)), short(x)) for x in nice_ticks(x_scale.low, x_scale.high, 4)),
        y_ticks=tuple(Tick(rounded(y_scale(y)), short(y)) for y in nice_ticks(y_scale.low, y_scale.high, 3)),
        bands=_alarm_bands(alarms, y_scale),
        zero=rounded(y_scale(0.0)) if y_scale.low < 0 < y_scale.high else None,
        last=short(seen[-1]),
        count=len(seen),
        gaps=len(ordered) - len(seen),
    )


@dataclass(frozen=True)
class Whisker:
    """One estimate on the axis, in percent of the chart's width."""

    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Axis:
    """The values at both ends of a dot-and-whisker chart, and its ticks in percent of the width."""

    low: float
    high: float
    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        return rounded(100 * (value - self.low) / (self.high - self.low))

    def whisker(self, value: float, low: float, high: float) -> Whisker:
        return Whisker(self.place(value), self.place(low), self.place(high))


def share_axis(values: Sequence[float]) -> Axis:
    """An axis in percent that holds all values, shares in [0, 1], with a little room and never beyond 0 and 1."""
    least, most = (min(values), max(values)) if values else (0.0, 1.0)
    room = max(0.1 * (most - least), 0.01)
    low, high = max(0.0, least - room), min(1.0, most + room)
    axis = Axis(low, high, ())
    ticks = tuple(Tick(axis.place(value), f"{100 * value:g} %") for value in nice_ticks(low, high, 5))
    return Axis(low, high, ticks)


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within [low, high], about as many as asked for; two at least, as one alone tells no distance."""
    if not high > low:
        return [low]
    found = _ticks(low, high, (high - low) / about)
    return found if len(found) > 1 else _ticks(low, high, (high - low) / (2 * about))


def _ticks(low: float, high: float, rough: float) -> list[float]:
    """Every multiple within [low, high] of the next round number that isn't below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.10g}") for index in range(first, last + 1)]


def short(value: float | None) -> str:
    """A number in few characters: 3 significant digits, k and M for thousands and millions, – for none."""
    if value is None or not known(value):
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, size if unit != 'k' else 1e3):.3g}{unit}".replace("-", "−")
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("e-0", "e-").replace("-", "−")


@dataclass(frozen=True)
class Scale:
    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, margin: float) -> Scale:
        low, high = min(values), max(values)
        if high == low:
            room = abs(low) * 0.5 or 0.5
            return cls(low - room, high + room, start, end)
        room = (high - low) * margin
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


Bucket = tuple[float, float, float, float]
"""x, mean, least, most."""


def _buckets(ordered: Series) -> list[Bucket | None]:
    """The series in at most MOST_POINTS buckets; None for one without a finite value."""
    size = max(1, math.ceil(len(ordered) / MOST_POINTS))
    found: list[Bucket | None] = []
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        seen = [y for _, y in part if y is not None and known(y)]
        middle = sum(x for x, _ in part) / len(part)
        found.append((middle, sum(seen) / len(seen), min(seen), max(seen)) if seen else None)
    return found


def _runs(buckets: Sequence[Bucket | None]) -> list[list[Bucket]]:
    """Stretches without a gap."""
    runs: list[list[Bucket]] = [[]]
    for bucket in buckets:
        if bucket is None:
            runs.append([])
        else:
            runs[-1].append(bucket)
    return [run for run in runs if run]


def _outline(run: Sequence[Bucket], x_scale: Scale, y_scale: Scale) -> str:
    upper = [(x_scale(x), y_scale(most)) for x, _, _, most in run]
    lower = [(x_scale(x), y_scale(least)) for x, _, least, _ in reversed(run)]
    return svg_path(upper + lower) + "Z"


def svg_path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{rounded(x)},{rounded(y)}" for x, y in places)


def _alarm_bands(alarms: tuple[float, float] | None, y_scale: Scale) -> tuple[Band, ...]:
    if alarms is None:
        return ()
    bottom, (low, high) = HEIGHT - BOTTOM, (y_scale(value) for value in alarms)
    return Band(TOP, rounded(high - TOP)), Band(rounded(low), rounded(bottom - low))


def known(value: float | None) -> bool:
    """Finite, and not so large that the axis overflows."""
    return value is not None and abs(value) < 1e100


def rounded(value: float) -> float:
    return round(value, 2)
