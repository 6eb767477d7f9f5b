"""The rows as a table in a terminal, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from afa_llm.doctor.findings import Findings
from afa_llm.doctor.rows import Row, Verdict, counted, worst
from afa_llm.evaluation.visible_text import visible

STYLES: dict[Verdict, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}
SIDE_BY_SIDE = 100
"""From this width on the mend has a column of its own; below, it stands under what was found."""


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Table and closing line. Words that come from nodes are shown, not obeyed."""
    wide = console.width >= SIDE_BY_SIDE and any(row.mend for row in rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=wide)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", ratio=3, overflow="fold")
    if wide:
        table.add_column("mend", ratio=2, overflow="fold")
    previous = ""
    for row in rows:
        cells = [Text("" if row.check == previous else row.check), Text(row.verdict, STYLES[row.verdict])]
        cells += [_text(row.found), _text(row.mend)] if wide else [_stacked(row)]
        table.add_row(*cells)
        previous = row.check
    console.print(table)
    console.print()
    console.print(closing_line(rows), style=STYLES[worst(rows)])


def closing_line(rows: Sequence[Row]) -> str:
    failed, warned = (sum(row.verdict == verdict for row in rows) for verdict in ("fail", "warn"))
    warnings = f", {counted(warned, 'warning')}" if warned else ""
    if failed:
        return f"{counted(failed, 'row')} to mend before the run{warnings}"
    return f"ready{warnings}"


def as_json(rows: Sequence[Row], findings: Findings) -> str:
    """{"verdict", "rows": [{check, verdict, found, mend}], "findings": all that was asked}."""
    content = {
        "verdict": worst(rows),
        "rows": [row.model_dump() for row in rows],
        "findings": findings.model_dump(mode="json"),
    }
    return json.dumps(content, indent=2)


def _stacked(row: Row) -> Text:
    text = _text(row.found)
    if row.mend:
        text.append("\n").append_text(Text("→ ", "dim")).append_text(_text(row.mend))
    return text


def _text(words: str) -> Text:
    return Text(visible(words).replace("\n", " "))
