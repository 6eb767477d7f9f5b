"""Words and rationales that rows bring along."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from row_files import load, write

from afa_llm.data.quarantine import Quarantine
from afa_llm.records import Example

RATED = {"words_column": "tokens", "rationale_column": "marks"}


def rated(tmp_path: Path, tokens: Any, marks: Any, quarantine: Quarantine, **settings: Any) -> Example:
    row = {"text": "It isn't good.", "label": 0, "tokens": tokens, "marks": marks}
    return load(write(tmp_path / "r.jsonl", [row]), quarantine, **RATED, **settings)[0]


def test_given_words_and_rationales_are_used(tmp_path: Path) -> None:
    tokens = ["It", "is", "n't", "good", "."]
    quarantine = Quarantine()
    example = rated(tmp_path, tokens, [0, 0.25, True, 1, 0], quarantine)
    assert [example.text[start:end] for start, end in example.words] == tokens
    assert example.rationale == (0.0, 0.25, 1.0, 1.0, 0.0)
    assert rated(tmp_path, tokens, [2, 2, 1, 4, 2], quarantine, rationale_neutral=2).rationale == (0, 0, 1, 1, 0)
    assert rated(tmp_path, json.dumps(tokens), "[0, 0, 0, 1, 0]", quarantine).rationale == (0, 0, 0, 1, 0)
    assert not quarantine.notes


@pytest.mark.parametrize(
    ("tokens", "marks", "keeps_words", "note"),
    [
        (["It", "was", "good"], [0, 0, 1], False, "words don't align"),
        (None, [1], False, "no list of words"),
        ([], [], False, "no list of words"),
        (["It", 3], [0, 1], False, "no list of words"),
        (["It", "isn't", "good."], None, True, "no list of numbers"),
        (["It", "isn't", "good."], [0, 1, 4], True, "values are not numbers in 0..1"),
        (["It", "isn't", "good."], [0, 1, "1"], True, "values are not numbers in 0..1"),
        (["It", "isn't", "good."], [0, 1, float("nan")], True, "values are not numbers in 0..1"),
    ],
)
def test_unusable_annotations_cost_the_rationale_not_the_row(
    tmp_path: Path, tokens: Any, marks: Any, keeps_words: bool, note: str
) -> None:
    quarantine = Quarantine()
    example = rated(tmp_path, tokens, marks, quarantine)
    assert example.rationale is None
    expected = ["It", "isn't", "good."] if keeps_words else ["It", "isn't", "good", "."]
    assert [example.text[start:end] for start, end in example.words] == expected
    assert [note in what for what in quarantine.notes] == [True]
    assert re.search(rf"1 × .*{note}.*; first at .*/[^/]+:\d+ \(used all the same\)", quarantine.summary())
    assert quarantine.rows == []


def test_a_rationale_of_another_length_is_a_bad_row(tmp_path: Path) -> None:
    rows = [
        {"text": "It isn't good.", "label": 0, "tokens": ["It", "isn't", "good."], "marks": [0, 1]},
        {"text": "It is good.", "label": 1, "tokens": ["It", "is", "good."], "marks": [0, 0, 0.667]},
    ]
    quarantine = Quarantine()
    (kept,) = load(write(tmp_path / "r.jsonl", rows), quarantine, **RATED)
    assert kept.rationale == (0, 0, 0.667)
    (bad,) = quarantine.rows
    assert (bad.line, bad.reason) == (1, "marks has 2 values for 3 words of tokens")


def test_rationales_as_character_spans(tmp_path: Path) -> None:
    rows = [
        {"text": "  It was good fun.", "label": 1, "span": [9, 13]},
        {"text": "Not bad, not great.", "label": 0, "span": [[0, 7], [9, 12]]},
        {"text": "Nothing.", "label": 0, "span": []},
        {"text": "Short.", "label": 0, "span": [2, 9]},
        {"text": "No span.", "label": 0},
        {"text": "Mixed.", "label": 0, "span": [[0, 5], 3]},
    ]
    quarantine = Quarantine()
    found = load(write(tmp_path / "r.jsonl", rows), quarantine, rationale_span_column="span")
    assert [e.rationale for e in found] == [(0, 0, 1, 0, 0), (1, 1, 0, 1, 0, 0), (0, 0), None]
    assert [bad.reason for bad in quarantine.rows] == [
        "span: [2, 9] is no span of a text of 6 characters",
        "span: 3 is no span of a text of 6 characters",
    ]
