"""What a benchmark leaves beside its cells: benchmark.json, report.html, and tables/ as CSV and LaTeX."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.outcomes import read_outcome
from afa_llm.benchmark.results import Matrix, build
from afa_llm.benchmark.settings import Benchmark
from afa_llm.evaluation import json_files


def write_benchmark(benchmark: Benchmark, cells: Sequence[Cell], place: Path) -> list[Path]:
    """The files of all finished cells together. Raises AfaError where a cell's files are no results."""
    outcomes = {(cell.data_set, cell.arm, cell.seed): read_outcome(cell) for cell in cells if cell.finished}
    matrix = Matrix(benchmark, cells, outcomes)
    content = build(matrix, shlex.join(["afa", *sys.argv[1:]]))
    json_files.write_json(place / "benchmark.json", content)
    return [place / "benchmark.json"]
