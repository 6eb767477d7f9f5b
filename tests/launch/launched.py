"""A launch script that runs, and what it leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).parents[2]
LAUNCH = CHECKOUT / "launch"


@dataclass
class Script:
    """A script in the background."""

    process: subprocess.Popen[str]

    def send(self, name: str) -> None:
        self.process.send_signal(getattr(signal, name))

    def end(self, seconds: float = 120) -> tuple[int, str]:
        """Exit code and everything that was written."""
        output, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, output


def ranks_of(place: Path, count: int, seconds: float = 120) -> list[dict]:
    """What each stand-in rank noted, once all listen for signals."""
    notes = [place / f"rank_{rank}.json" for rank in range(count)]
    wait_for(*notes, seconds=seconds)
    return [json.loads(note.read_text()) for note in notes]


def wait_for(*paths: Path, seconds: float = 120) -> None:
    """Until the files are there."""
    deadline = time.monotonic() + seconds
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"no {[str(path) for path in paths if not path.exists()]}"
        time.sleep(0.05)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Living processes whose environment has TEST_FOLDER=folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TEST_FOLDER") == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
