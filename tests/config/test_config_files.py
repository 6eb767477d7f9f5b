"""Files of a configuration: which can be read, and what is said of the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from told import message

from afa_llm.config import Config
from afa_llm.config_loading import load_config, read_yaml, resolve_builtin
from afa_llm.errors import AfaError


def test_nothing_gives_the_defaults(write: Any) -> None:
    assert load_config() == Config()
    for text in ("", "# only a comment\n", "---\n", "training:\n", "data:\n  train:\n  # path: x\n", "\ufeff"):
        assert load_config(str(write(text))) == Config(), text


def test_a_file_is_read(write: Any) -> None:
    config = load_config(
        str(write("training:\n  epochs: 3\n  learning_rate: 1e-3\ndata:\n  labels:\n    no: [no, 0]\n    yes: [1]\n"))
    )
    assert (config.training.epochs, config.training.learning_rate) == (3.0, 0.001)
    assert config.data.labels == {"no": ("no", 0), "yes": (1,)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training:\n  epochs: [1\nrun: {}\n", " line 3: not valid YAML: "),
        ("run:\n\tname: x\n", " line 2: not valid YAML: "),
        ("run: {seed: 1}\nmodel: {}\nrun: {name: x}\n", " line 3: not valid YAML: 'run' stands twice"),
        ("- run\n", ": holds a list; a configuration is a mapping of sections"),
        ("just words\n", ": holds one value; a configuration is a mapping of sections"),
        (b"run: {name: caf\xe9}\n", ": not a text file in UTF-8 (byte 15); save it as UTF-8"),
        ("a: " + "[" * 20_000, ": not valid YAML: nested too deeply"),
    ],
    ids=range(7),
)
def test_files_that_hold_no_configuration(write: Any, text: str | bytes, words: str) -> None:
    file = write(text)
    found = message(path=file)
    assert found.startswith(f"{file}{words}")
    assert "\n" not in found


def test_a_benchmark_is_no_configuration_of_a_run(write: Any) -> None:
    file = write("name: x\narms: {a: {}}\ndata_sets: {d: {}}\n")
    assert (
        message(path=file) == f"{file}: a benchmark, not the settings of one run; start it with `afa benchmark {file}`"
    )


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert (
        message(path=tmp_path / "no.yaml") == f"{tmp_path / 'no.yaml'}: no such file; name a YAML file or builtin:demo"
    )
    assert message(path=tmp_path) == f"{tmp_path}: a folder, not a file; name a YAML file"


@pytest.mark.parametrize("through_link", [False, True])
def test_a_named_pipe_is_not_waited_for(tmp_path: Path, through_link: bool) -> None:
    """Nobody writes into it: reading it would wait for ever. One that a shell makes for `<(command)` has no name."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    path = tmp_path / ("link" if through_link else "pipe")
    command = [sys.executable, "-m", "afa_llm", "config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (2, f"afa config: {path}: a named pipe, not a file; name a YAML file\n")


def test_a_pipe_of_the_shell_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"run: {name: piped}\n")
    os.close(writer)
    with os.fdopen(reader):
        assert load_config(f"/dev/fd/{reader}").run.name == "piped"


def test_unknown_builtins_name_the_known() -> None:
    with pytest.raises(AfaError, match=r"builtin:nothing: no such builtin; there are "):
        read_yaml("builtin:nothing")
    assert resolve_builtin("some/file.yaml", "configs", ".yaml") == Path("some/file.yaml")
