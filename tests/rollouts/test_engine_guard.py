"""Nothing is left behind, whichever way the one that wanted an engine ends. Real processes, no engine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from afa_llm.rollouts import engine_guard

# An engine stands in here as two processes, the second of which outlives the first and holds shared memory and a
# socket, as vLLM's do; their names come after its number.
CHILD = (
    "import os, socket, sys, time; from multiprocessing.shared_memory import SharedMemory; "
    "memory = SharedMemory(create=True, size=4096); "
    "path = os.path.join(os.environ['VLLM_RPC_BASE_PATH'], 'socket'); "
    "listening = socket.socket(socket.AF_UNIX); listening.bind(path); "
    "open(sys.argv[1] + '.part', 'w').write(f'{os.getpid()} {path} {memory.name}'); "
    "os.rename(sys.argv[1] + '.part', sys.argv[1]); time.sleep(300)"
)
ENGINE = (
    "import os, subprocess, sys, time; "
    f"child = subprocess.Popen([sys.executable, '-c', {CHILD!r}, sys.argv[1]]); "
    "[time.sleep(0.02) for _ in iter(lambda: os.path.exists(sys.argv[1]), True)]; "
    "time.sleep(float(sys.argv[2]))"
)
# The trainer: starts the guard as EngineProcess does, then waits for its end.
TRAINER = (
    "import os, subprocess, sys, time; "
    "guard = subprocess.Popen([sys.executable, '-I', sys.argv[1], str(os.getpid()), *sys.argv[2:]], "
    "stdin=subprocess.PIPE, start_new_session=True); print(guard.pid, flush=True); time.sleep(300)"
)


def until(true: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Job:
    """A trainer with its guard, engine and the engine's child."""

    def __init__(self, folder: Path, seconds: float) -> None:
        note = folder / "child"
        command = [sys.executable, "-c", ENGINE, str(note), str(seconds)]
        trainer = [sys.executable, "-c", TRAINER, engine_guard.__file__, *command]
        self.trainer = subprocess.Popen(trainer, stdout=subprocess.PIPE)
        assert self.trainer.stdout
        self.guard = int(self.trainer.stdout.readline())
        assert until(note.exists)
        child, socket, memory = note.read_text().split()
        self.child, self.files = int(child), [Path(socket), Path("/dev/shm") / memory]
        self.engine = psutil.Process(self.child).ppid()
        assert all(file.exists() for file in self.files)

    def left(self) -> list[int | Path]:
        """Processes below the trainer that still run, and what the engine made beside them."""
        alive: list[int | Path] = [file for file in self.files if file.exists()]
        for process in (self.guard, self.engine, self.child):
            try:
                if psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
            except psutil.NoSuchProcess:
                pass
        return alive

    def end(self) -> None:
        for process in (self.child, self.engine, self.guard, self.trainer.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.trainer.wait()


@pytest.fixture
def start(tmp_path: Path):  # type: ignore[no-untyped-def]
    jobs: list[Job] = []

    def begin(seconds: float = 300) -> Job:
        jobs.append(Job(tmp_path, seconds))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.end()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_where_the_trainer_is_killed(start: Callable[..., Job], number: int) -> None:
    job = start()
    assert len(job.left()) == 5
    job.trainer.send_signal(number)
    job.trainer.wait(10)
    assert until(lambda: not job.left())


def test_nothing_is_left_where_the_guard_is_asked_to_end(start: Callable[..., Job]) -> None:
    job = start()
    os.kill(job.guard, signal.SIGTERM)
    assert until(lambda: not job.left())


def test_what_an_engine_leaves_behind_is_ended_too(start: Callable[..., Job]) -> None:
    job = start(0.5)
    assert until(lambda: not job.left())


def test_a_stopped_engine_is_ended(start: Callable[..., Job]) -> None:
    job = start()
    for process in (job.engine, job.child):
        os.kill(process, signal.SIGSTOP)
    job.trainer.kill()
    assert until(lambda: not job.left())


@pytest.mark.parametrize("trainer_too", [False, True])
def test_the_engine_and_its_children_die_with_a_killed_guard(start: Callable[..., Job], trainer_too: bool) -> None:
    job = start()
    if trainer_too:
        job.trainer.kill()
    os.kill(job.guard, signal.SIGKILL)
    assert until(lambda: not job.left())


def test_no_twin_is_left(start: Callable[..., Job]) -> None:
    job = start()
    twin = [child for child in psutil.Process(job.guard).children() if child.pid != job.engine]
    assert len(twin) == 1
    job.trainer.kill()
    assert until(lambda: not job.left() and not twin[0].is_running())


@pytest.mark.parametrize(("command", "code"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_guard_gives_the_engines_exit_code(command: str, code: int) -> None:
    guard = [sys.executable, "-I", engine_guard.__file__, str(os.getpid()), sys.executable, "-c", command]
    with subprocess.Popen(guard, stdin=subprocess.PIPE) as process:  # the open pipe says: go on
        assert process.wait(30) == code


def test_no_folder_is_left_of_a_command_that_is_not_there(tmp_path: Path) -> None:
    guard = [sys.executable, "-I", engine_guard.__file__, str(os.getpid()), str(tmp_path / "no-such-engine")]
    done = subprocess.run(guard, env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, check=False)
    assert done.returncode == 1 and b"no-such-engine" in done.stderr
    assert not list(tmp_path.iterdir())
