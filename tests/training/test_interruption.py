"""Signals set a flag; the launcher above is watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from afa_llm.errors import StoppedError
from afa_llm.rollouts.generator import shared
from afa_llm.training.distributed import World
from afa_llm.training.interruption import StopRequest, _parent_of


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_asks_and_does_nothing_else(number: signal.Signals) -> None:
    stop = StopRequest()
    stop.listen()
    try:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested and stop.reason == number.name
        stop.ask("something later")
        assert stop.reason == number.name
    finally:
        stop.deafen()
    assert signal.getsignal(number) is signal.SIG_DFL


def test_work_ends_between_two_passes() -> None:
    world = World(0, 1, torch.device("cpu"))
    world.heed()
    assert world.pulse.moves == 1
    world.pulse.at("before")
    world.stop.ask("SIGTERM")
    with pytest.raises(StoppedError, match=r"stopped by SIGTERM in phase before.*run\.resume=true") as stopped:
        world.heed()
    assert stopped.value.exit_code == 75


def test_a_stopped_rank_takes_the_others_along() -> None:
    """The share of a rank that was asked to stop is the request itself, so that nobody waits for it."""

    class Team:
        rank, size = 0, 2

        def gather(self, item: object) -> list[object]:
            return [item, StoppedError("stopped by SIGTERM")]

        def heed(self) -> None: ...

    with pytest.raises(StoppedError, match="SIGTERM"):
        shared(Team(), [1, 2, 3], lambda mine: [x * 10 for x in mine])


def test_a_process_whose_launcher_dies_has_another_parent(tmp_path: Path) -> None:
    """The outer launcher is killed; the rank below the inner one notices. Stand-ins for both launchers."""
    rank = tmp_path / "rank.py"
    rank.write_text(
        "import time, sys\n"
        "from afa_llm.training import interruption\n"
        "interruption._is_inner_launcher = lambda pid: True\n"
        "watch = interruption.LauncherWatch()\n"
        "print('gone' if watch.gone() else 'there', flush=True)\n"
        "for _ in range(200):\n"
        "    if watch.gone():\n"
        "        print('gone', flush=True); sys.exit()\n"
        "    time.sleep(0.05)\n"
    )
    inner = f"import subprocess, sys; subprocess.run([sys.executable, {str(rank)!r}])"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.kill()
    assert process.stdout.readline() == "gone\n"
    process.wait()


def test_the_parent_of_a_process_with_odd_names(tmp_path: Path) -> None:
    script = tmp_path / "a ) 1 (b"
    script.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(script), "30"])
    try:
        time.sleep(0.1)
        assert _parent_of(process.pid) == os.getpid()
    finally:
        process.kill()
        process.wait()
    assert _parent_of(2**22 + 1) is None
