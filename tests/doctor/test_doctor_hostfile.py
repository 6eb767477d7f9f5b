"""Hostfiles: what DeepSpeed reads is read; a wrong line is named with file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from afa_llm.doctor.hostfile import Host, read_hostfile
from afa_llm.errors import AfaError


def test_comments_blank_lines_and_further_keys(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# ours\n\nnode-1  slots=8\nme@node_2.example slots=4 # half\n  fd00::2\tslots=1 max_slots=4\n")
    assert read_hostfile(file) == [Host("node-1", 8), Host("me@node_2.example", 4), Host("fd00::2", 1)]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a slots=1\nb\n", 2, "such as: b slots=8"),
        ("a slots = 1\n", 1, "not `host slots=N`"),
        ("a slots=two\n", 1, "not `host slots=N`"),
        ("a slots=1 b slots=1\n", 1, "not `host slots=N`"),
        ("a slots=0\n", 1, "slots=0"),
        ("a slots=1\n\na slots=2\n", 3, "stands in line 1 already"),
        ("-oProxyCommand=x slots=1\n", 1, "no host name"),
        ("a;reboot slots=1\n", 1, "no host name"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = tmp_path / "hosts"
    file.write_text(text)
    with pytest.raises(AfaError) as caught:
        read_hostfile(file)
    assert f"{file} line {line}" in str(caught.value)
    assert words in str(caught.value)


def test_no_file_and_no_host(tmp_path: Path) -> None:
    with pytest.raises(AfaError, match="no such file"):
        read_hostfile(tmp_path / "none")
    (tmp_path / "empty").write_text("# nobody\n")
    with pytest.raises(AfaError, match="names no host"):
        read_hostfile(tmp_path / "empty")


def test_what_is_no_file_is_none_to_the_launcher(tmp_path: Path) -> None:
    """DeepSpeed trains on this machine alone then; and a pipe would be waited for."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(AfaError, match="not a file"):
            read_hostfile(path)
