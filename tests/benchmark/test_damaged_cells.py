"""A cell whose files are damaged is named, with what to do, and costs the others nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_matrix import write_fake_matrix

from afa_llm.benchmark import command
from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.outcomes import read_outcome
from afa_llm.benchmark.progress import duration
from afa_llm.benchmark.report import write_benchmark
from afa_llm.benchmark.runner import Status
from afa_llm.benchmark.settings import Benchmark
from afa_llm.errors import AfaError
from afa_llm.evaluation.json_files import answers_path, focus_path, word_counts_path

OTHERS = (None, 5, [], "x")
DROPPED = object()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Benchmark, list[Cell]]:
    """Two arms on one set: every part of the page has something to show."""
    benchmark, cells = write_fake_matrix(tmp_path_factory.mktemp("whole"), seeds=(0,), reviews=14)
    return benchmark, [cell for cell in cells if cell.data_set == "films" and cell.arm in ("ce", "afa")]


@pytest.fixture
def matrix(whole: tuple[Benchmark, list[Cell]], tmp_path: Path) -> Iterator[tuple[Benchmark, list[Cell]]]:
    """The same for a test to damage; whole again afterwards."""
    for cell in whole[1]:
        shutil.copytree(cell.folder, tmp_path / cell.arm)
    yield whole
    for cell in whole[1]:
        shutil.rmtree(cell.folder)
        shutil.copytree(tmp_path / cell.arm, cell.folder)


def keys(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each key of the results lies; of a list the first entry stands for all, the configuration is not read."""
    entries = (
        value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield (*path, key)
        if path != ("run",) or key != "config":
            yield from keys(inner, (*path, key))


def damaged(results: dict[str, Any], path: tuple[Any, ...], other: Any) -> str:
    changed = json.loads(json.dumps(results))
    place = changed
    for key in path[:-1]:
        place = place[key]
    if other is DROPPED:
        del place[path[-1]]
    else:
        place[path[-1]] = other
    return json.dumps(changed)


def test_whatever_is_wrong_in_results_the_cell_is_read_or_named(
    matrix: tuple[Benchmark, list[Cell]], tmp_path: Path
) -> None:
    benchmark, (good, bad) = matrix
    path = bad.folder / "results.json"
    results = json.loads(path.read_text())
    told: list[str] = []
    for place in keys(results):
        for other in (*OTHERS, DROPPED):
            path.write_text(damaged(results, place, other))
            try:
                read_outcome(bad)
            except AfaError as error:
                told.append(str(error))
                continue
            if other in (None, "x") and len(place) < 3:  # what is read goes on into tables and page
                assert write_benchmark(benchmark, [good, bad], tmp_path / "out"), (place, other)
    assert len(told) > 200
    assert all(f"; delete the folder {bad.folder} and run the benchmark again" in text for text in told)


@pytest.mark.parametrize("text", ['{"schema": 1}', "5", "{", "[]", '{"schema": 1, "headline": [{"after": 1}]}'])
def test_the_others_are_reported(
    matrix: tuple[Benchmark, list[Cell]], tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark, (good, bad) = matrix
    (bad.folder / "results.json").write_text(text)
    assert duration(Status(bad, "done")) == 0
    assert command._write(benchmark, [good, bad], tmp_path, 0) == 1
    told = capsys.readouterr()
    assert f"left out: cell {bad.name}: {bad.folder / 'results.json'}" in told.err
    assert str(tmp_path / "report.html") in told.out
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert {cell["name"]: cell["finished"] for cell in content["cells"]} == {good.name: True, bad.name: False}
    page = (tmp_path / "report.html").read_text()
    assert "could not be read" in page and str(bad.folder) in page
    assert "cells are not finished" not in page
    (good.folder / "results.json").write_text(text)
    assert command._write(benchmark, [good, bad], tmp_path / "none", 75) == 75
    assert "no cell can be read" in capsys.readouterr().out and not (tmp_path / "none").exists()


def test_answers_that_lost_lines_are_of_an_unreadable_cell(matrix: tuple[Benchmark, list[Cell]]) -> None:
    _, (cell, _) = matrix
    path = answers_path(cell.folder, "films_dev", "overall_it_was", "after")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    with pytest.raises(AfaError, match=r"holds 13 reviews, results.json tells of 14; delete the folder"):
        read_outcome(cell)
    for field in ("example_id", "text", "label", "prediction", "probability", "log_prob"):
        path.write_text("".join([*lines[:-1], json.dumps(json.loads(lines[-1]) | {field: 0.5})]))
        with pytest.raises(AfaError, match="record 14: not an item record"):
            read_outcome(cell)


@pytest.mark.parametrize(
    "text", ["[]", "5", '{"film": "x"}', '{"film": null}', '{"film": -1}', "{", f'{{"a": 1{"0" * 400}}}']
)
def test_word_counts_are_left_out_of_the_figures(
    matrix: tuple[Benchmark, list[Cell]], tmp_path: Path, text: str
) -> None:
    benchmark, cells = matrix
    notes: list[str] = []
    word_counts_path(cells[0].folder).write_text(text)
    assert write_benchmark(benchmark, cells, tmp_path, notes)
    assert [str(word_counts_path(cells[0].folder)) in note for note in notes] == [True]
    assert f"delete the folder {cells[0].folder}" in notes[0]


def test_focus_and_metrics_are_left_out_of_the_figures(matrix: tuple[Benchmark, list[Cell]], tmp_path: Path) -> None:
    benchmark, (ours, theirs) = matrix
    notes: list[str] = []
    focus_path(ours.folder, "films_dev").write_text('{"label": 1e999}\n')
    lines = (theirs.folder / "metrics.jsonl").read_text()
    odd = '{"task_loss": 1}\n{"step": "x"}\n{"step": 1e400, "task_loss": "x"}\n'
    (theirs.folder / "metrics.jsonl").write_text(lines + odd + '{"step": 3, "task_loss": "x"}\n{"step": 7, "task')
    assert write_benchmark(benchmark, [ours, theirs], tmp_path, notes)
    told = "\n".join(dict.fromkeys(notes))
    assert told.count(str(focus_path(ours.folder, "films_dev"))) == 1
    assert f"{theirs.folder}/metrics.jsonl: 1 lines are no JSON objects" in told
    assert "metrics.jsonl: 3 lines name no step" in told
