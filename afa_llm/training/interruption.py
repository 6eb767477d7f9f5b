"""Asked to stop: SIGTERM and SIGUSR1 set a flag, and the run ends where nothing is lost.

SIGTERM is what launchers, schedulers and containers send; SIGUSR1 is what SLURM sends before a time limit (and what
DeepSpeed's launcher does not turn into a kill). Python runs handlers between two instructions of the main thread, so
they must do next to nothing.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

from afa_llm.errors import StoppedError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether this process was asked to stop, and by what."""

    def __init__(self) -> None:
        self.reason = ""

    @property
    def requested(self) -> bool:
        return bool(self.reason)

    def ask(self, reason: str) -> None:
        """Ask; the first reason stays."""
        self.reason = self.reason or reason

    def listen(self) -> None:
        """Take over the signals. Only the main thread may call this."""
        for number in SIGNALS:
            signal.signal(number, self._heard)

    def deafen(self) -> None:
        """Give the signals back: they end the process again."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def error(self, where: str) -> StoppedError:
        return StoppedError(
            f"stopped by {self.reason or 'a signal to another rank'} {where}; run.resume=true continues the run"
        )

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.ask(signal.Signals(number).name)


class LauncherWatch:
    """Tells when the launcher above this process is gone.

    DeepSpeed's outer command has no signal handler: killed, it leaves its inner launcher and all ranks running. The
    inner launcher is this process's parent; when the outer one dies, the parent gets another parent.
    """

    def __init__(self) -> None:
        self.parent = os.getppid()
        self.grandparent = _parent_of(self.parent) if _is_inner_launcher(self.parent) else None

    def gone(self) -> bool:
        if self.grandparent is None:
            return False
        return os.getppid() != self.parent or _parent_of(self.parent) != self.grandparent


def _is_inner_launcher(process: int) -> bool:
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            return b"deepspeed.launcher.launch" in file.read()
    except OSError:
        return False


def _parent_of(process: int) -> int | None:
    """From /proc/PID/stat, whose second field may hold spaces and parentheses; None without such a process."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None
