"""One cell as a process of the same program: started, watched, stopped; two processes never share a cell.

A cell's lock file is held by its process (the lock lives as long as an open descriptor, which it inherits). So when the
benchmark is killed and its cells live on, the next one waits for them instead of starting them twice.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from afa_llm.benchmark.cells import Cell
from afa_llm.config_loading import dump_config
from afa_llm.evaluation.json_files import write_text
from afa_llm.training.durable_files import lock_file

VERBS = {"trained": "train", "prompted": "evaluate"}
STOP_SECONDS = 120.0
"""For ranks whose launcher has gone; deepspeed's own gives them 30."""
LOUD = ("afa train:", "afa evaluate:")


def command(cell: Cell, launcher: str) -> list[str]:
    """The command line of a cell. `launcher`: such as `deepspeed --num_gpus 2`; empty: one process."""
    program = [*shlex.split(launcher), "--module"] if launcher else [sys.executable, *_where_this_process_looks(), "-m"]
    resume = ["run.resume=true"] if cell.started else []
    return [*program, "afa_llm", VERBS[cell.kind], str(cell.beside(".yaml")), *resume]


def _where_this_process_looks() -> list[str]:
    """Options of Python for a cell to import what this process imports. With `-m` alone the working folder comes first,
    where a datasets.py or torch.py of the user's may lie; the command `afa` does not look there."""
    return [] if os.getcwd() in sys.path or "" in sys.path else ["-P"]


class CellProcess:
    """A running cell. Its output goes to `seed<k>.log`, below that of earlier tries; `log_from`: where it begins."""

    def __init__(self, cell: Cell, launcher: str, environment: Mapping[str, str], lock: int) -> None:
        self.cell, self.began = cell, time.monotonic()
        self._patience = 0.0  # until when processes that the first one left behind count as the cell
        write_text(cell.beside(".yaml"), dump_config(cell.config))
        with cell.beside(".log").open("ab") as log:
            self.log_from = log.tell()
            self.process = subprocess.Popen(
                command(cell, launcher),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(environment),
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C reaches the benchmark alone, which then asks its cells to stop
            )
        os.close(lock)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def ended(self) -> int | None:
        """Exit code, as a shell says it where a signal ended it; None while it runs.

        A launcher that is asked to stop may go before its ranks, which save a checkpoint: they are waited for.
        """
        code = self.process.poll()
        if code is None or (time.monotonic() < self._patience and self._is_heard(0)):
            return None
        return code if code >= 0 else 128 - code

    def ask_to_stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """A signal to all processes of the cell: every rank then stops with a checkpoint."""
        self._patience = time.monotonic() + STOP_SECONDS
        self._is_heard(number)

    def _is_heard(self, number: int) -> bool:
        """A signal to all processes of the cell (0: none). Whether there is one."""
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def try_lock(cell: Cell) -> int | None:
    """A descriptor that holds the cell's lock; None where another process does."""
    path = cell.beside(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    return lock_file(path)


def last_words(log: Path, start: int = 0, most: int = 300) -> str:
    """What a failed cell said from byte `start` of its log on: the message of `afa`, else its last line."""
    try:
        said_now = log.read_bytes()[start:].decode("utf-8", errors="replace")
    except OSError:
        return "no log"
    lines = [line.strip() for line in said_now.splitlines()]
    lines = [line for line in lines if line]
    said = [line for line in lines if line.startswith(LOUD)]
    text = (said or lines or ["no output"])[-1]
    return text if len(text) <= most else text[: most - 1] + "…"


def progress(log: Path) -> str:
    """The last line of a running cell's log, shortened."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 2000))
            tail = file.read().decode("utf-8", errors="replace").replace("\r", "\n").splitlines()
    except OSError:
        return ""
    found = [line.strip() for line in tail if line.strip()]
    return found[-1][:60] if found else ""
