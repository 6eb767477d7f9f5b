"""A launch script that runs, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from processes import command_of

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


def launch_environment(folder: Path) -> dict[str, str]:
    """That of a machine without GPU; TEST_FOLDER marks the processes of one test."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_"))}
    return inherited | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT),
        "DS_ACCELERATOR": "cpu",
        "COLUMNS": "120",
        "NO_COLOR": "1",
        "TEST_FOLDER": str(folder),
    }


@contextmanager
def scripts_in(folder: Path, environment: dict[str, str]) -> Iterator[Callable[..., Script]]:
    """Gives start(NAME, ARGUMENTS, prefix=COMMAND, VARIABLE=value): launch/NAME in the folder, in the background.

    Fails, and cleans up, where a script still runs in the end or a process outlives its script.
    """
    scripts: list[Script] = []

    def start(name: str, *arguments: str, prefix: tuple[str, ...] = (), **variables: str) -> Script:
        process = subprocess.Popen(
            [*prefix, str(LAUNCH / name), *arguments],
            cwd=folder,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        scripts.append(Script(process))
        return scripts[-1]

    try:
        yield start
    finally:
        running = [str(script.process.args) for script in scripts if script.process.poll() is None]
        left = [] if running else _still_there(folder, seconds=2)  # the kernel's own time to take them down
        for process in processes_of(folder):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for script in scripts:
            script.process.communicate()
    assert not running, running
    assert not left, left


def _still_there(folder: Path, seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [" ".join(command) for process in left if (command := command_of(process))]


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
