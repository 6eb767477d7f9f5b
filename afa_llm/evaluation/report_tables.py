"""Rows of the report's tables and of its headline chart: numbers of results.json turned into text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afa_llm.data.checklist import kind_of
from afa_llm.evaluation.charts import Axis, Whisker, share_axis
from afa_llm.evaluation.focus_metrics import METRICS
from afa_llm.evaluation.verdict import fixed, p_text, points

Row = Mapping[str, Any]


@dataclass(frozen=True)
class HeadlineRow:
    """A line of the dot-and-whisker chart. `kind`: mean, trained or template."""

    data_set: str
    label: str
    kind: str
    before: Whisker
    after: Whisker | None
    text: str
    change: str


@dataclass(frozen=True)
class ScoreRow:
    """A line of the score table; a cell is its text before and after. `mark`: better, worse, same, or empty."""

    data_set: str
    template: str
    calibration: str
    headline: bool
    count: int
    cells: tuple[tuple[str, str], ...]
    change: str
    interval: str
    won_lost: str
    p: str
    mark: str


@dataclass(frozen=True)
class FocusRow:
    """A line of the focus table. `family`: the heading it stands under."""

    family: str
    title: str
    meaning: str
    before: str
    after: str
    change: str
    interval: str
    mark: str
    word: str
    chance: str
    count: str


SCORE_COLUMNS = ("Accuracy %", "AUROC", "Macro-F1", "Brier", "ECE", "Predicted %")


def headline_rows(results: Row) -> tuple[list[HeadlineRow], Axis]:
    """Each data set's mean over templates and its templates under the headline calibration, on one axis.

    With more than three data sets, of the templates only the trained one.
    """
    found = []
    sets = results.get("headline") or []
    for entry in sets:
        if _value(entry.get("before")) is not None:
            count = len(entry.get("templates") or ())
            label = f"Mean over {count} templates" if count > 1 else "Accuracy"
            found.append(
                (entry["data_set"], label, "mean", entry["before"], entry.get("after"), entry.get("difference"))
            )
        if len(entry.get("templates") or ()) > 1:
            found += _template_entries(results, entry["data_set"], only_trained=len(sets) > 3)
    ends = [x for row in found for estimate in row[3:5] if estimate for x in (estimate["low"], estimate["high"])]
    axis = share_axis(ends)
    return [_headline_row(axis, *row) for row in found], axis


def score_rows(results: Row) -> list[ScoreRow]:
    """Every data set, template and calibration."""
    return [_score_row(row, results) for row in results.get("scores") or []]


def score_blocks(rows: Sequence[ScoreRow]) -> list[tuple[tuple[str, str], list[ScoreRow]]]:
    """The rows by data set and template, in their order."""
    blocks: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in rows:
        blocks.setdefault((row.data_set, row.template), []).append(row)
    return list(blocks.items())


def group_rows(results: Row) -> list[tuple[str, str, str, int, str, str]]:
    """(data set, template, group, reviews, accuracy before, after) under the headline calibration.

    The worst group stands last; it may be another one after than before. Behavioural tests have a table of their own.
    """
    found = []
    for row in results.get("scores") or []:
        if row["calibration"] == results.get("headline_calibration"):
            before, after = _groups(row["before"]), _groups(row["after"])
            for name, old in before.items():
                new = points(_value(after.get(name)))
                found.append((row["data_set"], row["template"], name, old["count"], points(old["value"]), new))
            if len(before) > 1:
                worst, later = _worst(before), _worst(after)
                count, shown = (worst or {"count": 0})["count"], points(_value(later)) if after else ""
                found.append((row["data_set"], row["template"], "worst group", count, points(_value(worst)), shown))
    return found


def _groups(scores: Row | None) -> dict[str, Row]:
    """Accuracy by group, without behavioural tests."""
    groups = (scores or {}).get("group_accuracy") or {}
    return {name: each for name, each in groups.items() if not kind_of(name)}


def _worst(groups: Mapping[str, Row]) -> Row | None:
    """The group of lowest accuracy, of those that have one."""
    return min((each for each in groups.values() if each["value"] is not None), key=lambda e: e["value"], default=None)


def focus_tables(results: Row) -> list[tuple[str, int, list[FocusRow]]]:
    """(data set, reviews, rows) for each data set whose focus was measured; metrics that no review has are left out."""
    found = []
    for entry in results.get("focus") or []:
        rows = [_focus_row(row) for row in entry["metrics"] if _value(row["before"]) is not None]
        found.append((entry["data_set"], entry["reviews"], rows))
    return found


def mark(difference: Row | None, better: str) -> str:
    """better or worse where the interval leaves out 0 (up or down where neither is better), same where it does not."""
    if not difference or difference.get("value") is None:
        return ""
    if difference["low"] <= 0 <= difference["high"]:
        return "same"
    up = difference["value"] > 0
    if not better:
        return "up" if up else "down"
    return "better" if up == (better == "higher") else "worse"


WORDS = {"better": "better", "worse": "worse", "same": "within noise", "up": "more", "down": "less", "": ""}


def _template_entries(results: Row, data_set: str, only_trained: bool) -> list[tuple]:
    found = []
    for row in results.get("scores") or []:
        trained = row["template"] == results.get("train_template")
        wanted = row["data_set"] == data_set and row["calibration"] == results.get("headline_calibration")
        if wanted and (trained or not only_trained) and _value(row["before"]["accuracy"]) is not None:
            label = row["template"] + (" (trained with)" if trained else "")
            after = row["after"]["accuracy"] if row["after"] else None
            change = (row.get("comparison") or {}).get("difference")
            found.append(
                (data_set, label, "trained" if trained else "template", row["before"]["accuracy"], after, change)
            )
    return found


def _headline_row(
    axis: Axis, data_set: str, label: str, kind: str, before: Row, after: Row | None, change: Row | None
) -> HeadlineRow:
    text = f"{points(before['value'])} %" + (f" → {points(after['value'])} %" if after else "")
    return HeadlineRow(
        data_set=data_set,
        label=label,
        kind=kind,
        before=axis.whisker(before["value"], before["low"], before["high"]),
        after=axis.whisker(after["value"], after["low"], after["high"]) if after else None,
        text=text,
        change=points(_value(change), True) if after else "",
    )


def _score_row(row: Row, results: Row) -> ScoreRow:
    comparison = row.get("comparison") or {}
    difference, test = comparison.get("difference"), comparison.get("test") or {}
    return ScoreRow(
        data_set=row["data_set"],
        template=row["template"],
        calibration=row["calibration"],
        headline=row["calibration"] == results.get("headline_calibration"),
        count=row["before"]["count"],
        cells=tuple(zip(_cells(row["before"]), _cells(row["after"]), strict=True)),
        change=points(_value(difference), True) if difference else "",
        interval=_interval(difference, 100, 1) if difference else "",
        won_lost=f"{test['won']} : {test['lost']}" if test else "",
        p=p_text(test.get("p_value")).removeprefix("p").removeprefix(" =").strip() if test else "",
        mark=_tested_mark(difference, test, 1 - results.get("confidence", 0.95)),
    )


def _tested_mark(difference: Row | None, test: Row, level: float) -> str:
    found = mark(difference, "higher")
    if found in ("better", "worse") and (test.get("p_value") is None or test["p_value"] >= level):
        return "same"
    return found


def _cells(scores: Row | None) -> tuple[str, ...]:
    if scores is None:
        return ("",) * len(SCORE_COLUMNS)
    rates = " / ".join("–" if rate is None else f"{100 * rate:.0f}" for rate in scores["predicted_rate"])
    accuracy = points(_value(scores["accuracy"]))
    return accuracy, *(fixed(scores.get(key)) for key in ("auroc", "macro_f1", "brier", "ece")), rates


def _focus_row(row: Row) -> FocusRow:
    metric = next((m for m in METRICS if m.name == row["metric"]), None)
    difference, after = row.get("difference"), row.get("after")
    found = mark(difference, metric.better if metric else "")
    chance = _arrow(fixed(row.get("chance_before")), fixed(row.get("chance_after")) if after else "")
    return FocusRow(
        family=metric.family if metric else "",
        title=metric.title if metric else row["metric"],
        meaning=metric.meaning if metric else "",
        before=fixed(row["before"]["value"]),
        after=fixed(_value(after)) if after else "",
        change=fixed(_value(difference), signed=True) if difference else "",
        interval=_interval(difference, 1, 3) if difference else "",
        mark=found,
        word=WORDS[found],
        chance=chance,
        count=_counted(row["before"], after, row["left_out"]),
    )


def _counted(before: Row, after: Row | None, left_out: int) -> str:
    """Reviews below a value, and those for which it is not defined; after too where these are others."""
    counts = [before["count"], after["count"] if after else before["count"]]
    without = [counts[0] + left_out - count for count in counts]
    shown, lacking = (_arrow(*map(str, numbers)) for numbers in (counts, without))
    return f"{shown} ({lacking} left out)" if any(without) else shown


def _value(estimate: Row | None) -> float | None:
    return estimate.get("value") if estimate else None


def _arrow(before: str, after: str) -> str:
    return f"{before} → {after}" if after not in ("", before) else before


def _interval(estimate: Row | None, scale: float, digits: int) -> str:
    if not estimate or estimate.get("low") is None:
        return ""
    low, high = (fixed(scale * estimate[end], True, digits) for end in ("low", "high"))
    return f"{low} to {high}"
