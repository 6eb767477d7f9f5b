"""Files appear whole, hold no NaN, and carry any text."""

import errno
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from afa_llm.errors import AfaError
from afa_llm.evaluation.json_files import (
    answers_path,
    file_stem,
    focus_path,
    plain,
    read_json,
    read_lines,
    write_json,
    write_lines,
    write_text,
)


@dataclass(frozen=True)
class _Point:
    x: float
    tags: tuple[str, ...]


def test_plain_unfolds_and_knows_no_nan() -> None:
    content = {
        "p": _Point(math.nan, ("a",)),
        3: np.float32(0.5),
        "n": np.arange(2),
        "i": -math.inf,
        "b": np.bool_(True),
    }
    assert plain(content) == {"p": {"x": None, "tags": ["a"]}, "3": 0.5, "n": [0, 1], "i": None, "b": True}


def test_nan_becomes_null_in_the_file(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "r.json", {"a": [math.nan, 1.0]})
    assert json.loads((tmp_path / "deep" / "r.json").read_text()) == {"a": [None, 1.0]}


@pytest.mark.parametrize("text", ["a\u2028b\x85c\rd\n", "lone \ud800 surrogate", "\x00\x1b[2J", "😀 é"])
def test_any_text_stays_on_one_line_and_comes_back(tmp_path: Path, text: str) -> None:
    write_lines(tmp_path / "x.jsonl", [{"t": text}, {"t": "next"}])
    assert [record["t"] for record in read_lines(tmp_path / "x.jsonl")] == [text, "next"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "r.json", {"new": object()})
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_text(tmp_path / "folder", "no file can be renamed onto a folder")
    assert read_json(tmp_path / "r.json") == {"old": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "r.json"]


def test_a_full_disk_is_told_with_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*results\.json'"):
        write_json(tmp_path / "results.json", {})
    assert list(tmp_path.iterdir()) == []


def test_bad_lines_are_named(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n\n{"a": 2\n')
    with pytest.raises(AfaError, match=r"x\.jsonl:3: not a JSON object"):
        list(read_lines(file))
    file.write_text("[1]\n")
    with pytest.raises(AfaError, match=r"x\.jsonl:1: a list"):
        list(read_lines(file))
    file.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(AfaError, match=r"x\.jsonl:1"):
        list(read_lines(file))
    for text in ("[" * 100_000, "1" + "0" * 5000):
        file.write_text(text)
        with pytest.raises(AfaError, match=r"x\.jsonl:1: not a JSON object"):
            list(read_lines(file))
        with pytest.raises(AfaError, match="cannot be read as JSON"):
            read_json(file)
    with pytest.raises(AfaError, match="cannot be read"):
        list(read_lines(tmp_path))
    with pytest.raises(AfaError, match="no such file"):
        read_json(tmp_path / "missing.json")


def test_names_of_data_sets_cannot_leave_the_folder_or_meet(tmp_path: Path) -> None:
    hostile = ["../../etc/passwd", "a/b", "a b", "a_b", "a__b", "", "é", "x" * 300, "\ud800", ".."]
    stems = [file_stem(name) for name in hostile]
    assert len(set(stems)) == len(hostile)
    assert all("/" not in stem and len(stem) < 80 for stem in stems)
    assert focus_path(tmp_path, "..").parent == tmp_path / "items"
    assert answers_path(tmp_path, "sst2", "t", "before").name == "answers_sst2__t__before.jsonl"
    assert answers_path(tmp_path, "a", "b__c", "x") != answers_path(tmp_path, "a__b", "c", "x")


def test_names_joined_in_a_file_name_do_not_meet(tmp_path: Path) -> None:
    """Answers to a_ under b were written over by those to a under _b. What earlier versions kept is found."""
    names = ["a", "b", "a_", "_b", "_", "a_b", "b_a", "é", "_é", "a-", "-a", "b-_"]
    paths = {answers_path(tmp_path, one, other, "after").name for one in names for other in names}
    assert len(paths) == len(names) ** 2
    for earlier in ("answers_a___b__after.jsonl", "focus__b.jsonl"):
        (tmp_path / "items").mkdir(exist_ok=True)
        (tmp_path / "items" / earlier).touch()
    assert answers_path(tmp_path, "a_", "b", "after").name == "answers_a___b__after.jsonl"
    assert focus_path(tmp_path, "_b").name == "focus__b.jsonl"
