"""Commands whose output or paths can't be used."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from afa_llm.cli import main
from afa_llm.endings import told_endings
from afa_llm.errors import AfaError
from afa_llm.training.distributed import free_port

EXPLAIN = [sys.executable, "-c", "from afa_llm.cli import main; main(['config', '--explain'])"]


def test_a_path_that_cannot_be_used_is_named() -> None:
    with pytest.raises(AfaError, match=r"/data/x\.csv: Permission denied"), told_endings():
        raise PermissionError(errno.EACCES, "Permission denied", "/data/x.csv")
    for number, error in ((errno.EISDIR, IsADirectoryError), (errno.EEXIST, FileExistsError)):
        with pytest.raises(AfaError, match="runs/x: in the way"), told_endings():
            raise error(number, "in the way", "runs/x")
    with pytest.raises(ConnectionRefusedError), told_endings():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(EXPLAIN, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_output_that_cannot_be_written() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(EXPLAIN, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "afa config: output: No space left on device\n")


def test_an_empty_config_is_not_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", ""])
    assert ended.value.code == 2 and "CONFIG is empty" in capsys.readouterr().err


def test_a_rank_is_not_taken_down_by_its_own_threads(tmp_path: Path) -> None:
    """With `sys.exit` in its place rank 1 aborts in most runs, with exit code -6 after the work is done; else its
    interpreter is torn down while those threads run.
    """
    worker = [sys.executable, str(Path(__file__).with_name("late_rank.py")), "end_process", str(tmp_path / "flag")]
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        subprocess.Popen(
            worker, env=os.environ | meet | {"RANK": rank}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    try:
        told = [rank.communicate(timeout=100) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert ranks[1].returncode == 7, told
    assert told[1][0] == "done\n"  # what was printed is written out, the exit handlers ran
    assert not (tmp_path / "torn down").exists()


def test_output_in_an_encoding_without_the_letters() -> None:
    """Such as a Latin-1 terminal: `afa config --explain` ended there with a traceback."""
    command = [sys.executable, "-c", "from afa_llm.cli import main; main(['config', 'run.output_dir=caf\u00e9'])"]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"output_dir: caf\xe9" in done.stdout
