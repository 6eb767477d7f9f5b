"""Signals reach the ranks through the real launchers, with a stand-in for the trainer; nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from launched import processes_of, ranks_of
from processes import command_of


def stopped(place: Path) -> list[str]:
    return sorted(f"{path.name} {path.read_text()}" for path in place.glob("stopped_*"))


def test_usr1_to_every_process_stops_the_ranks(start: Callable, place: Path) -> None:
    """Some batch systems signal every process of a job: the launchers must outlive it."""
    script = start("single_node.sh", "c.yaml", RANKS="2")
    ranks = {note["pid"] for note in ranks_of(place, 2)}
    for process in processes_of(place):
        if process.pid not in ranks:
            with suppress(ProcessLookupError):  # the script's naps come and go
                os.kill(process.pid, signal.SIGUSR1)
    code, output = script.end()
    assert code == 75, output
    assert stopped(place) == ["stopped_0 SIGUSR1", "stopped_1 SIGUSR1"]


@pytest.mark.slow
def test_a_signal_before_the_ranks_listen_waits_for_them(start: Callable, place: Path) -> None:
    script = start("single_node.sh", "c.yaml", RANKS="2", DEAF_SECONDS="4")
    while not any("deepspeed" in " ".join(command_of(process)) for process in processes_of(place)):
        assert script.process.poll() is None
    script.send("SIGTERM")
    code, output = script.end()
    assert code == 75, output
    assert "stopped_0 SIGTERM" in stopped(place)


@pytest.mark.slow
@pytest.mark.parametrize(("variables", "expected"), [({"WORK_SECONDS": "1"}, 0), ({"FAIL_AT": "1"}, 1)])
def test_exit_code_of_the_ranks_arrives(start: Callable, place: Path, variables: dict, expected: int) -> None:
    code, output = start("single_node.sh", "c.yaml", RANKS="2", **variables).end()
    assert code == expected, output


@pytest.mark.slow
def test_interrupt_reaches_the_ranks(start: Callable, place: Path) -> None:
    script = start("single_node.sh", "c.yaml", RANKS="2")
    ranks_of(place, 2)
    script.send("SIGINT")
    code, output = script.end()
    assert code == 130, output


@pytest.mark.slow
def test_ranks_whose_launcher_was_killed_are_ended(start: Callable, place: Path) -> None:
    script = start("single_node.sh", "c.yaml", RANKS="2")
    ranks_of(place, 2)
    launchers = [p for p in processes_of(place) if "deepspeed.launcher.launch" in command_of(p)]
    assert len(launchers) == 1
    launchers[0].kill()
    code, output = script.end()
    assert code == 1, output
    assert "outlived their launcher" in output


@pytest.mark.slow
def test_stop_finds_the_ranks_by_their_words(start: Callable, place: Path) -> None:
    """One of two jobs stops: the one whose words were given."""
    folders = {name: place / name for name in ("one", "two")}
    scripts = {}
    for name, folder in folders.items():
        folder.mkdir()
        scripts[name] = start("single_node.sh", "c.yaml", f"run.name={name}", STAND_IN=str(folder))
    for folder in folders.values():
        ranks_of(folder, 1)
    assert start("stop.sh", "c.yaml", "run.name=three").end()[0] == 1
    code, output = start("stop.sh", "run.name=two", "c.yaml").end()
    assert code == 0 and "SIGUSR1 sent to process" in output
    assert scripts["two"].end()[0] == 75
    assert scripts["one"].process.poll() is None
    port = ranks_of(folders["one"], 1)[0]["MASTER_PORT"]
    assert start("stop.sh", f"MASTER_PORT={port}").end()[0] == 0
    assert scripts["one"].end()[0] == 75
