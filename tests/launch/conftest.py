"""Launch scripts in a folder of their own, with the program or with a stand-in for it, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from launched import CHECKOUT, LAUNCH, Script, processes_of


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """That of a machine without GPU; TEST_FOLDER marks the processes of this test."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_"))}
    return inherited | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(CHECKOUT),
        "DS_ACCELERATOR": "cpu",
        "COLUMNS": "120",
        "NO_COLOR": "1",
        "TEST_FOLDER": str(tmp_path),
    }


@pytest.fixture
def place(tmp_path: Path, environment: dict[str, str]) -> Path:
    """Puts the stand-in in the program's place. Returns the folder of its notes."""
    module = tmp_path / "stand_in" / "afa_llm"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("stand_in.py"), module / "__main__.py")
    environment |= {"PYTHONPATH": str(module.parent), "STAND_IN": str(tmp_path)}
    return tmp_path


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """Fails, and cleans up, where a process of the test outlives its scripts."""
    yield
    deadline = time.monotonic() + 2  # the kernel's own time to take them down
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = []
    for process in processes_of(tmp_path):
        try:
            left.append(process.cmdline())
            process.kill()
        except psutil.NoSuchProcess:
            continue
    assert not left


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str], nothing_left: None) -> Iterator[Callable[..., Script]]:
    """Starts launch/NAME ARGUMENTS in the test's folder. Keywords are laid over the environment."""
    scripts: list[Script] = []

    def run(name: str, *arguments: str, prefix: tuple[str, ...] = (), **variables: str) -> Script:
        process = subprocess.Popen(
            [*prefix, str(LAUNCH / name), *arguments],
            cwd=tmp_path,
            env=environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        scripts.append(Script(process))
        return scripts[-1]

    yield run
    for script in scripts:
        if script.process.poll() is None:
            script.process.kill()
            for process in processes_of(tmp_path):
                process.kill()
            script.process.communicate()
            pytest.fail(f"{script.process.args} was still running")


@pytest.fixture
def programs(tmp_path: Path, environment: dict[str, str]) -> Callable[[str, str], None]:
    """Puts a shell script NAME first on PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    environment["PATH"] = f"{folder}:{environment['PATH']}"

    def put(name: str, text: str) -> None:
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)

    return put
