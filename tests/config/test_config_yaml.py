"""YAML 1.2 core schema, no key twice, and a dump that reads back."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from afa_llm.config_yaml import YamlError, dump_yaml, load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("+2", 2),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e-3", 0.001),
        ("1e5", 100000.0),
        ("-2.5E+2", -250.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("[1, 1e-1, x]", [1, 0.1, "x"]),
        ("a: {b: 1}", {"a": {"b": 1}}),
        ("x: &x {b: 1}\ny:\n  <<: *x\n  c: 2", {"x": {"b": 1}, "y": {"b": 1, "c": 2}}),
        ("'1'", "1"),
        ('{"a": ["\\ud83d\\udc4d good"]}', {"a": ["👍 good"]}),
    ],
)
def test_values(text: str, value: Any) -> None:
    found = load_yaml(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text", re.split(" ", "no yes on off y N 010 00 012e3 12:30 2024-01-01 0x10 0o7 1_000 . e5 1e .inf nan")
)
def test_what_looks_like_text_stays_text(text: str) -> None:
    """All of these but a few are something else to YAML 1.1: labels, dates and revisions."""
    assert load_yaml(text) == text
    assert load_yaml(f"{text}: [{text}]") == {text: [text]}


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: 2\na: 3", 3, "'a' stands twice"),
        ("a:\n  b: 1\n  b: 1", 3, "'b' stands twice"),
        ("[{b: 1, b: 1}]", 1, "'b' stands twice"),
        ("1: a\n1: b", 2, "'1' stands twice"),
        ("a: [1,\nb: 2", 2, "expected"),
        ("a: b: c", 1, "not allowed"),
        ("a:\n\tb: 1", 2, "cannot start"),
        ("a: 1\n---\nb: 2", 2, "another document"),
        ("? [a]\n: b", 1, "unhashable"),
        ("!!python/object/apply:os.getcwd []", 1, "tag"),
        ("x: \x01", None, "unacceptable"),
        ("[" * 20_000, None, "deeply"),
        ('a: 1\nb: "x\\0"', 2, "null character"),
        ('a: ["\\ud800"]', 1, "half of a surrogate pair"),
        ("a: 1\nb: !!int x", 2, "'x' cannot be read as int"),
        ("a: !!bool x", 1, "cannot be read as bool"),
        ("a: !!timestamp x", 1, "cannot be read as timestamp"),
        ("a:\n  - 1" + "0" * 5000, 2, "'10*' cannot be read as int"),
    ],
)
def test_errors_name_the_line(text: str, line: int | None, reason: str) -> None:
    with pytest.raises(YamlError, match=reason) as error:
        load_yaml(text)
    assert error.value.line == line


def test_aliases_that_unfold_to_billions_are_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in pairwise("abcdefghi")]
    with pytest.raises(YamlError, match="aliases unfold to more than"):
        load_yaml("\n".join(lines))
    assert len(load_yaml("\n".join(lines[:3]))["c"]) == 10


def test_a_merged_key_may_be_set_again() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\nd: {<<: [*a, *b]}"
    found = load_yaml(text)
    assert found["c"] == {"x": 2, "y": 3}
    assert found["d"] == {"x": 1, "y": 1}
    long = "a: &a {number: 1}\nb: &b {number: 2, other: 2}\nc: {<<: [*a, *b]}\nd: {<<: [*b, *a], other: 3}"
    assert load_yaml(long)["c"] == {"number": 1, "other": 2}
    assert load_yaml(long)["d"] == {"number": 2, "other": 3}


@pytest.mark.parametrize("text", ["a: 1\nb: {<<: 3}", "a: &a [1]\nb: {<<: *a}", "a: 1\nb: {<<: [{x: 1}, y]}"])
def test_only_mappings_are_merged(text: str) -> None:
    with pytest.raises(YamlError, match="mappings only"):
        load_yaml(text)


STRINGS = "1e5 1e-3 no yes 010 1:30 .5 1. null ~ true 2024-01-01 << = é - 1_000 0x10 +1 -0 .NaN 🎉"
SIGNS = "# ' \" !x &x *x %x @x ? : | > [ { , `"


@pytest.mark.parametrize(
    "text",
    [*STRINGS.split(" "), *SIGNS.split(" "), "", " a", "a ", "a: b", "- a", "a\nb", "\t", " _", "x" * 300, "a b " * 60],
)
def test_text_survives_a_dump(text: str) -> None:
    values = {"key": text, text or "empty": [text]}
    assert load_yaml(dump_yaml(values)) == values


@pytest.mark.parametrize("number", [0, -1, 10**20, 0.1, 1e-5, 1e22, -0.0, 5e-324, 1.0, 123456.789, True, None])
def test_numbers_survive_a_dump(number: Any) -> None:
    found = load_yaml(dump_yaml([number]))[0]
    assert repr(found) == repr(number)


def test_order_is_kept() -> None:
    assert list(load_yaml(dump_yaml({"b": 1, "a": 2}))) == ["b", "a"]
