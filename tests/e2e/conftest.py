"""The real command in real processes: `afa` alone, or under the `deepspeed` launcher with gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from processes import command_of

from afa_llm.training.distributed import free_port

Finished = subprocess.CompletedProcess[str]


def command(arguments: tuple[str, ...], ranks: int) -> list[str]:
    if not ranks:
        return [sys.executable, "-m", "afa_llm", *arguments]
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    meet = ["--num_accelerators", str(ranks), "--master_port", str(free_port())]
    return [launcher, *meet, "--module", "afa_llm", *arguments]


def environment() -> dict[str, str]:
    # A clean PYTHONPATH entry: the tests run from the checkout, the command from elsewhere.
    here = {"PYTHONPATH": str(Path(__file__).parents[2]), "DS_ACCELERATOR": "cpu"}
    return os.environ | {"COLUMNS": "120", "NO_COLOR": "1"} | here


@pytest.fixture
def afa(tmp_path: Path) -> Callable[..., Finished]:
    """Runs `afa ARGUMENTS` in a folder of its own. ranks=N starts it by the deepspeed launcher."""

    def run(*arguments: str, ranks: int = 0, timeout: int = 300) -> Finished:
        return subprocess.run(
            command(arguments, ranks),
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def forking() -> Iterator[subprocess.Popen[str]]:
    """`forking_command.py`: a command a line, each in a fork."""
    script = Path(__file__).with_name("forking_command.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        yield process
        process.communicate()


@dataclass
class Job:
    """A command that runs, with everything it says in a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def ranks(self) -> dict[int, psutil.Process]:
        """The processes of `afa` by rank (a single process is rank 0), whoever started them."""
        top = psutil.Process(self.process.pid)
        found = {}
        for process in [top, *top.children(recursive=True)]:
            words = command_of(process)
            if "afa_llm" in words and not any("deepspeed" in word for word in words[:4]):
                with suppress(psutil.NoSuchProcess):
                    found[int(process.environ().get("RANK", "0"))] = process
        return found

    def wait_for(self, ready: Callable[[], bool], what: str, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            assert self.process.poll() is None, f"the job ended before {what}:\n{self.text()}"
            assert time.monotonic() < deadline, f"no {what} after {seconds} s:\n{self.text()}"
            time.sleep(0.1)

    def ends(self, seconds: float) -> int:
        """Exit code; fails where the job lives on."""
        return self.process.wait(timeout=seconds)

    def text(self) -> str:
        return self.log.read_text(errors="replace")


@pytest.fixture
def start_job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Starts `afa ARGUMENTS` and returns at once; whatever is left at the end of the test is killed."""
    jobs: list[Job] = []
    seen: list[psutil.Process] = []

    def start(*arguments: str, ranks: int = 0) -> Job:
        log = tmp_path / f"job_{len(jobs)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command(arguments, ranks), cwd=tmp_path, env=environment(), stdout=file, stderr=file
            )
        jobs.append(Job(process, log))
        return jobs[-1]

    yield start
    for job in jobs:
        if job.process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                seen += psutil.Process(job.process.pid).children(recursive=True)
            job.process.send_signal(signal.SIGKILL)
            job.process.wait()
    for process in seen:
        with suppress(psutil.NoSuchProcess):
            process.kill()
