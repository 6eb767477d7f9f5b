"""Which settings name files, and when two nodes hold the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from afa_llm.config_loading import load_config
from afa_llm.data import sources
from afa_llm.doctor import inputs
from afa_llm.doctor.inputs import input_paths, is_a_path, look_at, may_be_on_hub
from afa_llm.doctor.local_facts import collect


def test_what_the_package_brings_is_left_out() -> None:
    assert input_paths(load_config(), None) == {}
    assert input_paths(load_config("builtin:demo"), "builtin:demo") == {}
    config = load_config(None, ["model.path=org/m", "data.train.path=t.csv", "data.evaluation.0.path=d.csv"])
    assert input_paths(config, "c.yaml") == {
        "CONFIG": "c.yaml",
        "model.path": "org/m",
        "data.train.path": "t.csv",
        "data.evaluation.0.path": "d.csv",
    }


def test_equal_contents_have_equal_fingerprints(tmp_path: Path) -> None:
    for name, text in (("a", "same"), ("b", "same"), ("c", "SAME")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    of = {name: look_at("model.path", str(tmp_path / name)).fingerprint for name in "abc"}
    assert of["a"] == of["b"] != of["c"]
    files = {name: look_at("CONFIG", str(tmp_path / name / "config.json")).fingerprint for name in "abc"}
    assert files["a"] == files["b"] != files["c"]
    assert look_at("CONFIG", str(tmp_path / "none")).fingerprint is None


def test_what_cannot_be_read_is_told_and_spoils_nothing_else(tmp_path: Path) -> None:
    assert look_at("data.train.path", "x" * 300).trouble == "File name too long"
    facts = collect({"data.train.path": "x" * 300, "CONFIG": str(tmp_path)})
    assert facts.inputs["data.train.path"].trouble and not facts.inputs["CONFIG"].trouble


def test_large_files_are_compared_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "WHOLE_FILE_BYTES", 3)
    for name, text in (("a", "1234"), ("b", "5678"), ("c", "12345")):
        (tmp_path / name).write_text(text)
    of = {name: look_at("CONFIG", str(tmp_path / name)).fingerprint for name in "abc"}
    assert of["a"] == of["b"] != of["c"]


def test_hub_names_are_looked_up_in_the_cache_only() -> None:
    assert look_at("model.path", "nobody/no-such-model-anywhere").cached is False
    assert look_at("model.path", "/no/such/folder").cached is None
    assert look_at("data.train.path", "nobody/no-such-data").cached is None
    assert [is_a_path(p) for p in ("org/m", "m", "./m", "/m", "~/m", "a/b/c")] == [False, False, True, True, True, True]


def test_every_file_of_the_data_is_looked_at() -> None:
    """data.validation and lists of ids to leave out were not."""
    source = "{path: v.jsonl, exclude_ids: v.txt}"
    config = load_config(
        None, ["data.train.exclude_ids=t.txt", f"data.validation={source}", f"data.evaluation=[{source}]"]
    )
    assert input_paths(config, None) == {
        "data.train.exclude_ids": "t.txt",
        "data.validation.path": "v.jsonl",
        "data.validation.exclude_ids": "v.txt",
        "data.evaluation.0.path": "v.jsonl",
        "data.evaluation.0.exclude_ids": "v.txt",
    }


@pytest.mark.parametrize(
    ("setting", "path", "may_be"),
    [
        ("model.path", "org/model.v2", True),
        ("data.train.path", "org/data", True),
        ("data.evaluation.0.path", "imdb", True),
        ("data.train.path", "t.jsonl", False),
        ("data.evaluation.0.path", "sets/dev.csv.gz", False),
        ("data.train.path", "./imdb", False),
        ("data.train.exclude_ids", "ids", False),
        ("data.suites_dir", "suites", False),
        ("prompts.file", "prompts.yaml", False),
        ("evaluation.lexicon", "words", False),
        ("training.deepspeed_file", "zero.json", False),
        ("CONFIG", "c.yaml", False),
    ],
)
def test_a_file_that_is_nowhere_is_no_name_of_the_hub(setting: str, path: str, may_be: bool) -> None:
    assert may_be_on_hub(setting, path) == may_be
    assert sorted(inputs.FILE_TYPES) == sorted(sources.FILE_TYPES)


def test_a_home_folder_is_read_as_the_run_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "f").write_text("good")
    assert look_at("evaluation.lexicon", "~/f").fingerprint == look_at("data.train.path", "~/f").fingerprint is not None
    assert look_at("prompts.file", "~/f").fingerprint is None  # nor does the run find it there
