"""The table at two widths, and JSON."""

from __future__ import annotations

import io
import json

import pytest
from planted_findings import healthy
from rich.console import Console

from afa_llm.doctor.rows import Row, fail, ok, warn
from afa_llm.doctor.table import as_json, closing_line, print_table

ROWS = [
    ok("nodes", "2 nodes"),
    fail("GPUs", "b sees 1", "set slots=1"),
    warn("GPUs", "a sees [red]2[/red]\x1b[2J", "m"),
]


def printed(rows: list[Row], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_table(rows, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_the_mend_stands_beside_where_there_is_room_and_below_where_not() -> None:
    wide, narrow = printed(ROWS, 120), printed(ROWS, 80)
    assert any("b sees 1" in line and "set slots=1" in line for line in wide)
    place = next(k for k, line in enumerate(narrow) if "b sees 1" in line)
    assert narrow[place + 1].strip() == "→ set slots=1"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    rows = [*ROWS, fail("nodes", "word " * 60, "x" * 300)]
    assert max(map(len, printed(rows, width))) <= width


def test_a_check_is_named_once_and_nothing_is_obeyed() -> None:
    text = "\n".join(printed(ROWS, 120))
    assert text.count("GPUs") == 1
    assert "[red]2[/red]" in text
    assert "\x1b" not in text


def test_the_closing_line_counts() -> None:
    assert closing_line(ROWS) == "1 row to mend before the run, 1 warning"
    assert closing_line([ROWS[0]]) == "ready"
    assert closing_line([ROWS[0], ROWS[2], ROWS[2]]) == "ready, 2 warnings"


def test_json_holds_the_same_rows_and_all_facts() -> None:
    content = json.loads(as_json(ROWS, healthy()))
    assert content["verdict"] == "fail"
    assert content["rows"][1] == {"check": "GPUs", "verdict": "fail", "found": "b sees 1", "mend": "set slots=1"}
    assert content["findings"]["nodes"][2]["facts"]["packages"]["torch"] == "2.13.0"
