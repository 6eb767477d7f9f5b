"""What a matrix does about cells that others have, that are done, and that fail (whole matrices: tests/e2e)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from test_loading import cells_of

from afa_llm.benchmark import cell_process
from afa_llm.benchmark.cell_process import try_lock
from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.runner import MatrixRunner
from afa_llm.errors import STOPPED


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    found = cells_of(tmp_path)
    places = [tmp_path / cell.folder.parent for cell in found]
    configs = [
        cell.config.model_copy(update={"run": cell.config.run.model_copy(update={"output_dir": str(place)})})
        for cell, place in zip(found, places, strict=True)
    ]
    return [Cell(c.data_set, c.arm, c.seed, c.kind, config) for c, config in zip(found, configs, strict=True)]


def commands(monkeypatch: pytest.MonkeyPatch, of_arm: dict[str, str]) -> None:
    """Cells as real processes that run a line of shell instead of a training."""
    monkeypatch.setattr(
        cell_process, "command", lambda cell, launcher: ["sh", "-c", of_arm[cell.arm].format(cell.folder)]
    )


def test_a_cell_that_a_living_process_has_is_waited_for(cells: list[Cell]) -> None:
    lock = try_lock(cells[0])
    assert lock is not None
    runner = MatrixRunner(cells[:1], jobs=2, watch=lambda statuses: None)
    assert runner._look()
    assert (runner.statuses[0].state, runner.slots) == ("elsewhere", [None, None])
    cells[0].folder.mkdir(parents=True)
    (cells[0].folder / "results.json").write_text("{}")
    os.close(lock)
    assert not runner._look()
    assert runner.statuses[0].state == "done"


def test_the_lock_lives_as_long_as_the_cells_process(cells: list[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    commands(monkeypatch, {"base": "sleep 30"})
    runner = MatrixRunner(cells[:1], jobs=1, watch=lambda statuses: None)
    assert runner._look()
    process = runner.slots[0]
    assert process is not None
    assert try_lock(cells[0]) is None  # ours is closed; the process holds it
    process.ask_to_stop(signal.SIGKILL)
    process.process.wait()
    again, patience = None, time.monotonic() + 10
    while again is None and time.monotonic() < patience:  # a child of the killed process may die a moment later
        again = try_lock(cells[0])
    assert again is not None
    os.close(again)


def test_a_failed_cell_does_not_stop_the_others(cells: list[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    done = "mkdir -p {0} && echo x > {0}/results.json"
    commands(
        monkeypatch, {"base": done, "ce": "echo 'afa train: no such module' && exit 2", "long_ce": "true", "afa": done}
    )
    first = [cell for cell in cells if cell.data_set == "planted"]
    runner = MatrixRunner(first, jobs=2, watch=lambda statuses: None)
    assert runner.run() == 1
    states = {status.cell.arm: status for status in runner.statuses}
    assert {arm: status.state for arm, status in states.items()} == {
        "base": "done", "ce": "failed", "long_ce": "failed", "afa": "done",
    }  # fmt: skip
    assert states["ce"].message == "exit code 2: afa train: no such module"
    assert states["long_ce"].message == "exit code 0: no output"  # ended without results


def test_a_cell_that_fails_again_is_told_by_what_it_said_this_time(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of a cell goes on over all tries, and a mended fault was told as long as no other message followed."""
    said = ["afa train: no such module", "Killed"]
    for line in said:
        commands(monkeypatch, {"base": f"echo '{line}'; exit 2"})
        runner = MatrixRunner(cells[:1], jobs=1, watch=lambda statuses: None)
        assert runner.run() == 1
        assert runner.statuses[0].message == f"exit code 2: {line}"
    assert cells[0].beside(".log").read_text().splitlines() == said


def test_a_cell_that_cannot_be_started_does_not_stop_the_others(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(monkeypatch, {"base": "mkdir -p {0} && echo x > {0}/results.json"})
    first = [cell for cell in cells if cell.arm == "base"][:2]
    first[0].beside(".log").mkdir(parents=True)
    runner = MatrixRunner(first, jobs=1, watch=lambda statuses: None)
    assert runner.run() == 1
    assert [status.state for status in runner.statuses] == ["failed", "done"]
    assert runner.statuses[0].message.startswith("cannot be started: ")
    lock = try_lock(first[0])
    assert lock is not None
    os.close(lock)


def test_a_cell_whose_folder_cannot_be_made_does_not_stop_the_others(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The benchmark ended, and the cells that ran went on without it."""
    commands(monkeypatch, {"ce": "mkdir -p {0} && echo x > {0}/results.json"})
    first = [cells[0], next(cell for cell in cells if cell.arm == "ce")]
    first[0].folder.parent.parent.mkdir(parents=True)
    first[0].folder.parent.touch()
    runner = MatrixRunner(first, jobs=1, watch=lambda statuses: None)
    assert runner.run() == 1
    assert [status.state for status in runner.statuses] == ["failed", "done"]
    assert runner.statuses[0].message.startswith("cannot be started: ")


def test_asked_to_stop_the_cells_are_asked_and_nothing_new_starts(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(monkeypatch, dict.fromkeys(("base", "ce", "long_ce", "afa"), "trap 'exit 75' TERM; sleep 60 & wait"))

    def stop_once(statuses: object) -> None:
        if sum(status.state == "running" for status in runner.statuses) == 2 and runner.stop_signal is None:
            time.sleep(0.5)  # the shells set their traps
            os.kill(os.getpid(), signal.SIGTERM)

    runner = MatrixRunner(cells[:6], jobs=2, watch=stop_once)
    handler = signal.getsignal(signal.SIGTERM)
    assert runner.run() == STOPPED
    assert [status.state for status in runner.statuses] == ["stopped", "stopped", *["waiting"] * 4]
    assert signal.getsignal(signal.SIGTERM) == handler


def test_ranks_that_outlive_their_launcher_are_waited_for(cells: list[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark was over while they saved their checkpoints, and the same command met them at work."""
    saved = cells[0].folder.parent / "checkpoint"
    rank = f"(trap '' TERM; sleep 1.5; echo x > {saved})"
    commands(monkeypatch, {"base": f"{rank} & exec sleep 60"})

    def stop_once(statuses: object) -> None:
        if runner.statuses[0].state == "running" and runner.stop_signal is None:
            time.sleep(0.5)  # the rank sets its trap
            os.kill(os.getpid(), signal.SIGTERM)

    runner = MatrixRunner(cells[:1], jobs=1, watch=stop_once)
    assert runner.run() == STOPPED
    assert saved.exists()


def test_a_cell_that_is_being_started_when_the_signal_comes_is_asked_too(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ran to its end, and the cells of the other slots were started beside it."""

    def signalled(cell: Cell, launcher: str) -> list[str]:
        os.kill(os.getpid(), signal.SIGTERM)
        return ["sh", "-c", f"sleep 2; mkdir -p {cell.folder} && echo x > {cell.folder}/results.json"]

    monkeypatch.setattr(cell_process, "command", signalled)
    runner = MatrixRunner(cells[:2], jobs=2, watch=lambda statuses: None)
    assert runner.run() == STOPPED
    assert [status.state for status in runner.statuses] == ["stopped", "waiting"]
