"""Runs the cells of a matrix over a number of slots, and goes on whatever one of them does.

A cell that has results is not run again; one that was begun is resumed from its checkpoint. A failed cell is noted and
the others go on. Asked to stop (SIGTERM, SIGUSR1, Ctrl-C) the running cells are asked too, and write their checkpoints.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Literal

from afa_llm.benchmark.cell_process import CellProcess, last_words, try_lock
from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.launchers import VISIBLE, devices, for_slot, gpus_here
from afa_llm.errors import INTERRUPTED, STOPPED

State = Literal["waiting", "elsewhere", "running", "done", "failed", "stopped"]
LOOK_SECONDS = 0.2


@dataclass
class Status:
    """Where a cell stands. `elsewhere`: a process that another benchmark started still has it."""

    cell: Cell
    state: State = "waiting"
    message: str = ""
    seconds: float = 0.0
    resumed: bool = False


class MatrixRunner:
    """`jobs` cells at a time. `watch` is called with all statuses whenever one changes, and every few looks."""

    def __init__(
        self, cells: Sequence[Cell], *, jobs: int, launcher: str = "", watch: Callable[[Sequence[Status]], None]
    ) -> None:
        self.statuses = [Status(cell, "done" if cell.finished else "waiting") for cell in cells]
        self.launcher, self.watch = launcher, watch
        self.devices = devices(jobs, os.environ, gpus_here())
        self.slots: list[CellProcess | None] = [None] * jobs
        self.stop_signal: signal.Signals | None = None

    def run(self) -> int:
        """All cells to their end. Exit code: 0, 1 where one failed, 75 or 130 after a signal."""
        earlier = {number: signal.signal(number, self._heard) for number in _SIGNALS}
        try:
            self.watch(self.statuses)
            while self._look():
                time.sleep(LOOK_SECONDS)
                self.watch(self.statuses)
            self.watch(self.statuses)
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
        if self.stop_signal:
            return INTERRUPTED if self.stop_signal == signal.SIGINT else STOPPED
        return 1 if any(status.state == "failed" for status in self.statuses) else 0

    def _look(self) -> bool:
        """Ends what has ended, starts what can start. False when nothing is left to wait for."""
        for slot, process in enumerate(self.slots):
            if process and process.ended() is not None:
                self._close(process)
                self.slots[slot] = None
        for slot, process in enumerate(self.slots):
            if process is None and not self.stop_signal:
                self._start(slot)
        left = ("running",) if self.stop_signal else ("running", "waiting", "elsewhere")
        return any(status.state in left for status in self.statuses)

    def _start(self, slot: int) -> None:
        """The first cell that waits and that nobody else has."""
        for status in self.statuses:
            if status.state not in ("waiting", "elsewhere"):
                continue
            try:
                lock = try_lock(status.cell)
            except OSError as error:
                status.state, status.message = "failed", f"cannot be started: {error}"
                continue
            if lock is None:
                status.state = "elsewhere"
                continue
            if status.cell.finished:  # by the process that had it
                os.close(lock)
                status.state = "done"
                continue
            status.resumed = status.cell.started
            place = self.devices[slot]
            environment = dict(os.environ) | ({} if place is None else {VISIBLE: place})
            launcher = for_slot(self.launcher, place)
            try:
                process = self.slots[slot] = CellProcess(status.cell, launcher, environment, lock)
            except OSError as error:  # a full disk, a launcher that is no program: the others may still do
                os.close(lock)
                status.state, status.message = "failed", f"cannot be started: {error}"
                continue
            status.state = "running"
            if self.stop_signal:  # it came while the process was being started, and could not be handed on
                process.ask_to_stop()
            return

    def _close(self, process: CellProcess) -> None:
        status = next(status for status in self.statuses if status.cell is process.cell)
        code, status.seconds = process.ended(), process.seconds
        if code == 0 and status.cell.finished:
            status.state = "done"
        elif self.stop_signal:
            status.state = "stopped"
        else:
            status.state = "failed"
            status.message = f"exit code {code}: {last_words(status.cell.beside('.log'), process.log_from)}"

    def _heard(self, number: int, frame: FrameType | None) -> None:
        """The first signal asks the cells to stop, the second ends them."""
        again, self.stop_signal = self.stop_signal, signal.Signals(number)
        for process in self.slots:
            if process:
                process.ask_to_stop(signal.SIGKILL if again else signal.SIGTERM)


_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
