"""Words for what nodes have in common."""

from __future__ import annotations

from afa_llm.doctor.rows import by_text, counted, fail, groups, least, names, ok, size, warn, worst


def test_the_worst_verdict_counts() -> None:
    rows = [ok("x", ""), warn("x", "", ""), fail("x", "", "")]
    assert [worst(rows[:n]) for n in (0, 1, 2, 3)] == ["ok", "ok", "warn", "fail"]


def test_few_nodes_are_named_and_many_counted() -> None:
    assert names(["a", "b"]) == "a, b"
    assert names(list("abcdefg")) == "a, b, c, d and 3 more"


def test_the_common_value_comes_first() -> None:
    assert groups({"a": "1", "b": "2", "c": "2"}) == "2 on b, c; 1 on a"


def test_the_same_text_is_told_once() -> None:
    rows = by_text("x", "warn", {"a": "bad", "b": "worse", "c": "bad"}, "mend it")
    assert [(row.found, row.mend) for row in rows] == [("a, c: bad", "mend it"), ("b: worse", "mend it")]


def test_numbers() -> None:
    assert [size(n) for n in (0, 64 * 2**20, 3 * 2**29, 5 * 2**40)] == ["0 MiB", "64 MiB", "1.5 GiB", "5.0 TiB"]
    assert [counted(1, "node"), counted(2, "node"), counted(1, "process"), counted(0, "process")] == [
        "1 node",
        "2 nodes",
        "1 process",
        "0 processes",
    ]
    assert [least([]), least([3, 3]), least([4, 3])] == ["none", "3", "3 or more"]
