"""What a benchmark leaves beside its cells: benchmark.json, report.html, and tables/ as CSV and LaTeX."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from afa_llm.benchmark import curves, figures, tables
from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.outcomes import Outcome, read_outcome
from afa_llm.benchmark.results import Matrix, build
from afa_llm.benchmark.settings import TABLES_FOLDER, Benchmark
from afa_llm.benchmark.summary import goal_lines, headline
from afa_llm.errors import AfaError
from afa_llm.evaluation import charts, json_files
from afa_llm.evaluation.gallery import SHADES, shelves
from afa_llm.evaluation.report import Gallery
from afa_llm.evaluation.verdict import p_number, points
from afa_llm.evaluation.visible_text import visible

CSV_FILES = ("means.csv", "comparisons.csv", "averages.csv", "goals.csv", "cells.csv")
"""Each has the numbers of that part of benchmark.json."""
MOST_CARDS = 3
BESIDE = {
    "auroc": "0.5 is chance; whatever the threshold, which accuracy depends on",
    "worst_group": "percent",
    "rare_word": "percent",
    "pair_consistency": "percent",
    "pair_order": "percent, whatever the threshold",
}
"""Metrics of the answers that have a table under accuracy's, and what their numbers are."""
Content = Mapping[str, Any]


def write_benchmark(
    benchmark: Benchmark, cells: Sequence[Cell], place: Path, notes: list[str] | None = None
) -> list[Path]:
    """The files of all finished cells together; a cell that can't be read is left out. None where no cell can be.

    `notes`: what was left out, one sentence each, is put there; the page shows them too. Raises AfaError where the
    cells do not fit each other.
    """
    notes = [] if notes is None else notes
    outcomes = _readable(cells, notes)
    if not outcomes:
        return []
    matrix = Matrix(benchmark, cells, outcomes)
    content = build(matrix, shlex.join(["afa", *sys.argv[1:]]))
    text = render(matrix, content, notes)
    json_files.write_json(place / "benchmark.json", content)
    json_files.write_text(place / "report.html", text)
    files = table_files(content, _data_set_titles(benchmark))
    for path, text in files.items():
        json_files.write_text(place / TABLES_FOLDER / path, text)
    _remove_stale(place / TABLES_FOLDER, files)
    return [place / "benchmark.json", place / TABLES_FOLDER, place / "report.html"]


def _readable(cells: Sequence[Cell], notes: list[str]) -> dict[tuple[str, str, int], Outcome]:
    found = {}
    for cell in cells:
        if cell.finished:
            try:
                found[cell.data_set, cell.arm, cell.seed] = read_outcome(cell)
            except AfaError as error:
                notes.append(f"cell {cell.name}: {error}")
    return found


def _data_set_titles(benchmark: Benchmark) -> dict[str, str]:
    return {name: data_set.title or name for name, data_set in benchmark.data_sets.items()}


def table_files(content: Content, data_sets: Mapping[str, str]) -> dict[str, str]:
    """File name -> text. CSV holds the numbers of benchmark.json, LaTeX the tables of the page.

    `data_sets`: key -> title.
    """
    found = {name: tables.long_csv(content[name.removesuffix(".csv")]) for name in CSV_FILES}
    for table in _tables(content, data_sets):
        found[f"{json_files.file_stem(table.name)}.tex"] = tables.latex(table)
    return {name: text for name, text in found.items() if text.strip()}


def _remove_stale(folder: Path, written: Collection[str]) -> None:
    """Tables of an earlier report that this one does not have, as of a set that has another name now: nobody should
    cite them beside the others. Files of other origin stay."""
    for path in folder.iterdir():
        if path.name not in written and (path.name in CSV_FILES or tables.is_ours(path)):
            path.unlink()


def render(matrix: Matrix, content: Content, notes: list[str]) -> str:
    """The page as text; everything is escaped by the template engine, and the page forbids itself any network."""
    with resources.as_file(resources.files("afa_llm") / "assets" / "report") as place:
        environment = Environment(
            loader=FileSystemLoader(place), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, finalize=_shown,
        )  # fmt: skip
        css = Markup("".join((place / name).read_text(encoding="utf-8") for name in ("report.css", "benchmark.css")))
        return environment.get_template("benchmark.html.j2").render(css=css, **page(matrix, content, notes))


def page(matrix: Matrix, content: Content, notes: list[str]) -> dict[str, Any]:
    """Everything the template shows, as text and geometry. `notes`: see `write_benchmark`."""
    benchmark, titles = matrix.benchmark, {arm["name"]: arm["title"] for arm in content["arms"]}
    accuracy = [row for row in content["comparisons"] if row["metric"] == "accuracy"]
    blocks, axis = figures.forest(accuracy, titles, content["confidence"])
    shown = shown_arm(benchmark)
    data_sets = _data_set_titles(benchmark)
    every = _tables(content, data_sets)
    return {
        "content": content,
        "titles": titles,
        "reference": titles[benchmark.reference],
        "shown": titles[shown],
        "headline": headline(content, shown),
        "goals": goal_lines(content),
        "missing": [cell["name"] for cell in content["cells"] if not cell["finished"]],
        "unfinished": [cell.name for cell in matrix.cells if not cell.finished],
        "accuracy": next((table for table in every if table.name == "accuracy"), None),
        "units": BESIDE,
        "more": [table for table in every if table.name in BESIDE],
        "gains": next((table for table in every if table.name == "relative_gain"), None),
        "focus": [table for table in every if table.name.startswith("focus_")],
        "tests": next((table for table in every if table.name == "tests"), None),
        "budget": tables.budget(content, data_sets),
        "blocks": blocks,
        "axis": axis,
        "comparisons": accuracy,
        "learning": {title: curves.learning_curves(matrix, name, titles, notes) for name, title in data_sets.items()},
        "frequency": {
            matrix.label(key): curves.focus_by_frequency(matrix, *key, titles, notes) for key in matrix.sets()
        },
        "galleries": list(_galleries(matrix, shown, titles, notes)),
        "notes": list(dict.fromkeys(notes)),
        "phase_names": {"before": titles[benchmark.reference], "after": titles[shown]},
        "chart": charts,
        "points": points,
        "p_number": p_number,
        "kind": figures.difference_kind,
        "shades": range(SHADES + 1),
        "paired": True,
    }


def shown_arm(benchmark: Benchmark) -> str:
    """The arm that the gallery and the headline are about."""
    others = [name for name in benchmark.arms if name != benchmark.reference]
    return benchmark.show or (others or [benchmark.reference])[-1]


def _tables(content: Content, data_sets: Mapping[str, str]) -> list[tables.Table]:
    """All tables but the budget's, without empty ones."""
    by_set = [tables.by_set(content, metric) for metric in ("accuracy", *BESIDE)]
    sets = dict.fromkeys(row["set"] for row in content["means"])
    focus = [tables.by_metric(content, name, tables.SHOWN_FOCUS) for name in sets]
    tests = tables.tests(content, (*BESIDE, *tables.SHOWN_FOCUS))
    found = [*by_set, tables.gains(content), *focus, tests, tables.budget(content, data_sets)]
    return [table for table in found if table.rows and len(table.columns) > 1]


def _galleries(matrix: Matrix, shown: str, titles: Mapping[str, str], notes: list[str]):  # type: ignore[no-untyped-def]
    """The reference beside the shown arm, with the first seed that both have."""
    reference = matrix.benchmark.reference
    for data_set, name in matrix.sets():
        ours, theirs = matrix.of(data_set, shown), matrix.of(data_set, reference)
        seeds = [seed for seed in ours if seed in theirs]
        if not seeds or shown == reference:
            continue
        items = curves.side_by_side(theirs[seeds[0]], ours[seeds[0]], name, notes)
        labels = ours[seeds[0]].results["labels"]
        every = shelves(items, labels, MOST_CARDS, (titles[reference], titles[shown])) if items else []
        kept = [shelf for shelf in every if shelf.found]
        if kept:
            yield seeds[0], Gallery(matrix.label((data_set, name)), kept, True, any(item.rationale for item in items))


def _shown(value: Any) -> Any:
    """Applied to every expression of the template, before escaping."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
