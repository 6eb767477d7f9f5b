import json
from pathlib import Path

import pytest

from afa_llm.data.quarantine import KINDS_SHOWN, RAW_CHARACTERS, Quarantine
from afa_llm.errors import AfaError


def test_written_rows_keep_file_line_reason_and_raw(tmp_path: Path) -> None:
    quarantine = Quarantine()
    quarantine.add("r.jsonl", 3, "unknown label 'x'", {"text": "häßlich 👍", "label": "x"}, kind="unknown label")
    quarantine.add("planted/7", None, "90 tokens", "half \ud83d", kind="too long")
    path = quarantine.write(tmp_path / "deep" / "quarantine.jsonl")
    assert path is not None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows[0] | {"raw": ""} == {"file": "r.jsonl", "line": 3, "reason": "unknown label 'x'", "raw": ""}
    assert json.loads(rows[0]["raw"]) == {"text": "häßlich 👍", "label": "x"}
    assert rows[1]["line"] is None
    assert rows[1]["raw"] == "half \ud83d"
    assert [file.name for file in path.parent.iterdir()] == ["quarantine.jsonl"]


def test_nothing_is_written_where_nothing_is_bad(tmp_path: Path) -> None:
    assert Quarantine().write(tmp_path / "q.jsonl") is None
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "q.jsonl"
    target.write_text("old")
    quarantine = Quarantine()
    quarantine.add("f", 1, "reason", "raw")
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        quarantine.write(target)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_raw_text_is_cut_and_says_so() -> None:
    quarantine = Quarantine()
    quarantine.add("f", 1, "reason", "x" * 1_000_000)
    assert len(quarantine.rows[0].raw) < RAW_CHARACTERS + 30
    assert quarantine.rows[0].raw.endswith("… (1000000 characters)")


def test_summary_counts_by_kind_with_the_first_example() -> None:
    quarantine = Quarantine()
    for line, label in ((4, "meh"), (9, "bah")):
        quarantine.add("r.csv", line, f"unknown label {label!r}", {"label": label}, kind="unknown label")
    for line in (5, 7):
        quarantine.note("words don't align", f"r.csv:{line}")
    summary = quarantine.summary()
    assert "2 × unknown label; first at r.csv:4: unknown label 'meh'" in summary
    assert "bah" not in summary
    assert "2 × words don't align; first at r.csv:5 (used all the same)" in summary
    assert Quarantine().summary() == ""


def test_summary_of_a_wrong_column_stays_short() -> None:
    """Each row is then of its own kind: 100,000 labels are no message, and counting them took minutes."""
    quarantine = Quarantine()
    for line in range(1, 51):
        for _ in range(2 if line == 50 else 1):
            quarantine.add("r.csv", line, f"label {line}?", "", kind=f"unknown label {line}")
    quarantine.note("words don't align", "r.csv:5")
    lines = quarantine.summary().splitlines()
    assert len(lines) == KINDS_SHOWN + 2
    assert lines[0].startswith("2 × unknown label 50; first at r.csv:50: ")
    assert lines[KINDS_SHOWN] == f"{51 - KINDS_SHOWN - 1} × for {50 - KINDS_SHOWN} further reasons"
    assert lines[-1].startswith("1 × words don't align")


@pytest.mark.parametrize(("bad", "limit", "total", "stops"), [
    (10, None, 100, False), (11, None, 100, True), (1, None, 3, True), (0, None, 0, False),
    (5, 5, 6, False), (6, 5, 1000, True), (1, 0, 1000, True), (0, 0, 5, False),
])  # fmt: skip
def test_limit(bad: int, limit: int | None, total: int, stops: bool) -> None:
    quarantine = Quarantine()
    for line in range(bad):
        quarantine.add("f.csv", line, "reason", "raw")
    if not stops:
        return quarantine.check(limit, total)
    with pytest.raises(AfaError, match=rf"{bad} of {total} rows are bad(.|\n)*f\.csv:0(.|\n)*data\.max_bad_rows"):
        quarantine.check(limit, total)


def test_absorbing_takes_each_place_once_and_adds_up() -> None:
    whole, one, other = Quarantine(), Quarantine(rows_read=3), Quarantine(rows_read=2)
    one.add("a.jsonl", 4, "too long", "x")
    one.note("cut", "a/1")
    other.add("a.jsonl", 4, "too long under another template", "x")
    other.add("b.jsonl", 4, "too long", "y")
    other.note("cut", "a/1")  # the same review under another template
    other.note("cut", "a/2")
    whole.absorb(one)
    whole.absorb(other)
    assert [row.place for row in whole.rows] == ["a.jsonl:4", "b.jsonl:4"]
    assert list(whole.notes["cut"]) == ["a/1", "a/2"] and whole.rows_read == 5
