"""The time that is left: from cells that are alike, by what a cell has to do."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.loading import load_benchmark, plan_cells
from afa_llm.benchmark.progress import ProgressTable
from afa_llm.benchmark.runner import Status

FILE = """
name: b
reference: plain
show: afa
seeds: [0, 1]
data_sets: {one: {}, two: {}}
arms:
  base: {kind: prompted}
  plain: {settings: {objective: {policy_gradient_weight: 0}}}
  twice: {settings: {objective: {policy_gradient_weight: 0}, training: {epochs: 2}}}
  afa: {}
"""


@pytest.fixture
def cells(tmp_path: Path) -> dict[str, Cell]:
    (tmp_path / "b.yaml").write_text(FILE)
    path = str(tmp_path / "b.yaml")
    return {cell.name: cell for cell in plan_cells(load_benchmark(path), path)}


def left(cells: dict[str, Cell], done: dict[str, float], waiting: list[str], jobs: int = 1) -> float | None:
    statuses = [Status(cells[name], "done", seconds=seconds) for name, seconds in done.items()]
    statuses += [Status(cells[name]) for name in waiting]
    return ProgressTable(Console(), jobs).left(statuses)


def test_like_cells_tell(cells: dict[str, Cell]) -> None:
    done = {"one/plain/seed0": 10.0, "two/plain/seed0": 40.0}
    assert left(cells, done, ["one/plain/seed1"]) == 10
    assert left(cells, {"one/plain/seed0": 10.0}, ["two/plain/seed0"]) == 10


def test_a_cell_is_not_shared_by_slots(cells: dict[str, Cell]) -> None:
    """The last cell of two jobs was said to take half of its time."""
    done = {"one/plain/seed0": 10.0, "two/plain/seed0": 40.0}
    assert left(cells, done, ["two/plain/seed1"], jobs=2) == 40
    assert left(cells, done, ["two/plain/seed1", "one/plain/seed1"], jobs=2) == 40
    assert left(cells, done, ["one/plain/seed1", "two/plain/seed1", "one/plain/seed1"], jobs=2) == 40
    assert left(cells, done, ["one/plain/seed1", "one/plain/seed1", "two/plain/seed1"], jobs=2) == 50
    assert left(cells, done, [], jobs=2) == 0


def test_another_arm_is_known_by_its_work(cells: dict[str, Cell]) -> None:
    done = {"one/plain/seed0": 10.0, "two/plain/seed0": 40.0}
    assert left(cells, done, ["one/twice/seed0"]) == 20
    assert left(cells, done, ["one/afa/seed0"]) == 10 * (2 * 7 + 2) / (2 + 2)


def test_a_prompted_cell_tells_nothing_of_training(cells: dict[str, Cell]) -> None:
    assert left(cells, {"one/base/seed0": 10.0}, ["one/base/seed1"]) == 10
    assert left(cells, {"one/base/seed0": 10.0}, ["one/base/seed1", "one/afa/seed0"]) is None
    assert left(cells, {}, ["one/base/seed0"]) is None


def test_lines_that_nobody_reads_do_not_stop_the_matrix(
    cells: dict[str, Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`afa benchmark CONFIG 2>&1 | head -1` ended after the cells that ran, with 1."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with ProgressTable(Console(stderr=True), 1) as table:
            table([Status(cells["one/base/seed0"], "running"), Status(cells["one/plain/seed0"])])
            table([Status(cells["one/base/seed0"], "done", seconds=1.0), Status(cells["one/plain/seed0"], "running")])


def test_nothing_left(cells: dict[str, Cell]) -> None:
    assert left(cells, {"one/base/seed0": 10.0}, []) == 0
