"""Rows of the report's tables on pairs, behavioural tests, and rare and frequent words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afa_llm.evaluation.report_tables import WORDS, mark
from afa_llm.evaluation.verdict import fixed, p_text, points

Row = Mapping[str, Any]

KINDS = {
    "MFT": "Minimum functionality: the answer must be the label",
    "INV": "Invariance: a change that says nothing must leave the answer alone",
    "DIR": "Direction: an added phrase must raise the probability of its label",
}
BY = {"decisive": "Rarest decisive word", "rarest": "Rarest word of all"}


@dataclass(frozen=True)
class ShareRow:
    """A line with a share before and after, in percent. It stands under `heading`; `note` is said below its name."""

    heading: str
    name: str
    note: str
    count: int
    before: str
    after: str
    change: str
    interval: str
    mark: str
    word: str
    p: str


@dataclass(frozen=True)
class ShareTable:
    """A table of one data set. `counted`: what its rows count."""

    data_set: str
    counted: str
    rows: tuple[ShareRow, ...]


def pair_tables(results: Row) -> list[ShareTable]:
    """Pairs all of whose reviews are right, accuracy of their reviews, and of each side; every template."""
    return [
        ShareTable(name, "Pairs, reviews", tuple(line for row in rows for line in _pair_lines(row)))
        for name, rows in _by_set(results.get("pairs") or []).items()
    ]


def behaviour_tables(results: Row) -> list[ShareTable]:
    """Pass rates by test, under the training template (else the first measured)."""
    found = []
    for name, rows in _by_set(results.get("behaviour") or []).items():
        templates = list(dict.fromkeys(row["template"] for row in rows))
        main = results.get("train_template") if results.get("train_template") in templates else templates[0]
        lines = [_behaviour_line(row) for row in rows if row["template"] == main]
        found.append(ShareTable(name, "Cases", tuple(lines)))
    return found


def slice_tables(results: Row) -> list[ShareTable]:
    """Accuracy by training frequency."""
    return [
        ShareTable(name, "Reviews", tuple(_slice_line(row) for row in rows))
        for name, rows in _by_set(results.get("slices") or []).items()
    ]


def _by_set(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["data_set"], []).append(row)
    return found


def _pair_lines(row: Row) -> list[ShareRow]:
    before, after, compared = row["before"], row["after"] or {}, row["comparison"] or {}
    p = (compared.get("test") or {}).get("p_value")
    alone = f"reviews without a partner, left out: {row['left_out']}" if row["left_out"] else ""
    lines = [
        _line(row["template"], "All right", alone, before["consistency"], after.get("consistency"),
              compared.get("consistency"), p),
        _line(row["template"], "Accuracy", "", before["accuracy"], after.get("accuracy"), compared.get("accuracy")),
    ]  # fmt: skip
    order = before.get("in_order") or {}
    if order.get("value") is not None:
        note = "whatever the threshold: the answer moves as the label does"
        line = _line(row["template"], "In order", note, order, after.get("in_order"), compared.get("in_order"))
        lines.insert(1, line)
    for side, old in before["by_side"].items():
        lines.append(_line(row["template"], f"Accuracy, {side}", "", old, (after.get("by_side") or {}).get(side), None))
    return lines


def _behaviour_line(row: Row) -> ShareRow:
    before, after = row["before"], row["after"] or {}
    p = (row["mcnemar"] or {}).get("p_value")
    shifts = [phase["shift"]["value"] for phase in (before, after) if phase.get("shift")]
    what = "mean change of p" if row["kind"] == "INV" else "mean rise of p"
    note = f"{what} {' → '.join(map(fixed, shifts))}" if shifts else ""
    heading = KINDS.get(row["kind"]) or str(row["kind"])
    return _line(heading, row["test"], note, before["pass_rate"], after.get("pass_rate"), row["difference"], p)


def _slice_line(row: Row) -> ShareRow:
    heading = BY.get(row["by"]) or str(row["by"])
    counts = row["slice"] not in ("rare", "not rare")
    name = f"{row['slice']} times in training" if counts else f"{row['slice']} in training"
    return _line(heading, name, "", row["before"], row["after"], row["difference"])


def _line(
    heading: str, name: str, note: str, before: Row, after: Row | None, change: Row | None, p: float | None = None
) -> ShareRow:
    found = mark(change, "higher")
    return ShareRow(
        heading=heading,
        name=name,
        note=note,
        count=before["count"],
        before=_share(before),
        after=_share(after) if after else "",
        change=points(change["value"], True) if change and change["value"] is not None else "",
        interval=_interval(change),
        mark=found,
        word=WORDS[found],
        p=p_text(p) if p is not None else "",
    )


def _share(estimate: Row) -> str:
    """Value and interval, such as `75.0 (71.2 to 78.5)`."""
    if estimate.get("value") is None:
        return "–"
    return f"{points(estimate['value'])} ({points(estimate['low'])} to {points(estimate['high'])})"


def _interval(estimate: Row | None) -> str:
    if not estimate or estimate.get("low") is None:
        return ""
    return f"{points(estimate['low'], True)} to {points(estimate['high'], True)}"
