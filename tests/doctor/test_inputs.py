"""Which settings name files, and when two nodes hold the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from afa_llm.config_loading import load_config
from afa_llm.doctor import inputs
from afa_llm.doctor.inputs import input_paths, is_a_path, look_at


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
