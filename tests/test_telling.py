"""Lines that nobody can read any more: work goes on, and ends with its own exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from afa_llm.endings import told_endings
from afa_llm.telling import tell
from afa_llm.training.distributed import World
from afa_llm.training.metrics import MetricsLog


def pipe_without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def closed_terminal() -> int:
    master, slave = os.openpty()
    os.close(master)
    return slave


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


ALONE = World(0, 1, torch.device("cpu"))
NOBODY = [pipe_without_reader, closed_terminal, full_disk]


@contextmanager
def stderr_is(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with os.fdopen(descriptor, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield


@pytest.mark.parametrize("nobody", NOBODY)
def test_a_line_is_lost_and_the_work_goes_on(nobody: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    with stderr_is(nobody(), monkeypatch):
        for _ in range(3):
            tell("a line")
        ALONE.tell("a line of a run")


def test_without_stderr_no_line_comes_among_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        tell("a line")
    assert capsys.readouterr().out == ""


def test_progress_that_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`afa train CONFIG 2>&1 | head -1` ended with 0, and without a model."""
    log = MetricsLog(tmp_path, 1)
    with stderr_is(pipe_without_reader(), monkeypatch):
        log.write(1, {"loss": 1.0})
    log.close()


def test_progress_without_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        log.write(1, {"loss": 1.0})
    log.close()


@pytest.mark.parametrize("nobody", NOBODY)
def test_the_exit_code_is_kept(nobody: Callable[[], int]) -> None:
    command = [sys.executable, "-c", "from afa_llm.cli import main; main(['config', 'a.b=1'])"]
    descriptor = nobody()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=descriptor, check=False)
    os.close(descriptor)
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_broken_connection_is_no_reader_of_the_output() -> None:
    """Such as one to an engine: the command is not done."""
    with pytest.raises(BrokenPipeError), told_endings():
        raise BrokenPipeError


def test_a_table_that_nobody_reads_is_no_crash() -> None:
    """`afa inspect TEXT | head -1` ended with 1."""
    code = (
        "from afa_llm.endings import told_endings; from afa_llm.telling import results_console\n"
        "with told_endings(): results_console().print('a table')"
    )
    descriptor = pipe_without_reader()
    done = subprocess.run([sys.executable, "-c", code], stdout=descriptor, stderr=subprocess.PIPE, check=False)
    os.close(descriptor)
    assert (done.returncode, done.stderr) == (0, b"")
