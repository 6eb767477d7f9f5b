"""The verb `afa benchmark`: check everything, run the cells, write the report."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from afa_llm.benchmark.cells import Cell, select
from afa_llm.benchmark.launchers import check_launcher, devices, gpus_here
from afa_llm.benchmark.loading import load_benchmark, plan_cells
from afa_llm.benchmark.passes import passes_per_review
from afa_llm.benchmark.places import check_places
from afa_llm.benchmark.progress import ProgressTable
from afa_llm.benchmark.report import write_benchmark
from afa_llm.benchmark.runner import MatrixRunner
from afa_llm.benchmark.same_reviews import Reviews, asked, check_same
from afa_llm.benchmark.settings import Benchmark
from afa_llm.data.suite_catalogue import PREFIX
from afa_llm.data.suites import lacking, resolve_suites
from afa_llm.errors import AfaError
from afa_llm.kept_before import READING_ONLY
from afa_llm.material import basis, prepare
from afa_llm.material_checks import draws_masks
from afa_llm.run_advice import advices
from afa_llm.run_folder import changed_settings, data_notices
from afa_llm.telling import results_console, tell
from afa_llm.training.durable_files import lock_file
from afa_llm.training.step_batches import planned_steps


@dataclass(frozen=True)
class Work:
    """What a cell of a data set and arm will do."""

    reviews: int
    steps: int
    evaluated: int


def run(options: argparse.Namespace) -> int:
    """Exit code as in options.EPILOG. Raises AfaError before anything is run where settings or data are wrong."""
    benchmark = load_benchmark(options.config, options.overrides)
    cells = plan_cells(benchmark, options.config)
    chosen = select(cells, options.only)
    place = Path(benchmark.output_dir) / benchmark.name
    console = Console(stderr=True)
    check_places(place, chosen)
    if options.report:  # made of what the cells left: their data may lie elsewhere
        if not any(cell.finished for cell in cells):
            raise AfaError(
                f"{place}: no cell is finished there, and there is nothing to report; run it without --report, or set "
                "name and output_dir to those of a benchmark that ran"
            )
        return _write(benchmark, cells, place, 0)
    check_launcher(options.launcher, devices(options.jobs, os.environ, gpus_here()))
    chosen = _resolved(chosen)
    _refuse_changed(chosen)
    works = (
        {}
        if all(cell.finished for cell in chosen) and not options.dry_run
        else _check_data(chosen, benchmark.reference)
    )
    if options.dry_run:
        results_console(None if console.is_terminal else 120).print(_plan_table(chosen, works))
        return 0
    lock = _claim(place)
    with ProgressTable(console, options.jobs) as table:
        runner = MatrixRunner(chosen, jobs=options.jobs, launcher=options.launcher, watch=table)
        code = runner.run()
    os.close(lock)
    _tell_end(runner)
    return _write(benchmark, cells, place, code)


def _resolved(cells: Sequence[Cell]) -> list[Cell]:
    """suite:<name> as the source that it stands for, as the runs themselves do. Raises AfaError that names the cell.

    What a suite's file lacks is told here, once: the cells are started with the file's own path and know no suite.
    """
    found, notices = [], []
    for cell in cells:
        try:
            found.append(replace(cell, config=resolve_suites(cell.config)))
        except AfaError as error:
            raise AfaError(f"cell {cell.name}: {error}") from None
        notices += lacking(cell.config, found[-1].config)
    for notice in dict.fromkeys(notices):
        tell(notice)
    return found


def _write(benchmark: Benchmark, cells: Sequence[Cell], place: Path, code: int) -> int:
    if not any(cell.finished for cell in cells):
        print("no cell is finished: there is nothing to report")
        return code
    _tell_changed(cells)
    notes: list[str] = []
    try:
        paths = write_benchmark(benchmark, cells, place, notes)
    except OSError as error:
        raise AfaError(f"{error.filename2 or error.filename or place}: cannot be written: {error.strerror}") from error
    for path in paths:
        print(path)
    if not paths:
        print("no cell can be read: there is nothing to report")
    for note in dict.fromkeys(notes):
        tell(f"left out: {note}")
    return code or (1 if notes else 0)


def _tell_end(runner: MatrixRunner) -> None:
    """What is left to do, on stderr."""
    failed = [status for status in runner.statuses if status.state == "failed"]
    for status in failed:
        tell(f"{status.cell.name}: {status.message}\n  log: {status.cell.beside('.log')}")
    if runner.stop_signal:
        tell(f"stopped by {runner.stop_signal.name}; the same command goes on")
    elif failed:
        told = "1 cell failed; the same command tries it again"
        tell(told if len(failed) == 1 else f"{len(failed)} cells failed; the same command tries them again")


def _claim(place: Path) -> int:
    """The matrix belongs to one benchmark at a time. Raises AfaError where its folder can't be made or is taken."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = lock_file(place / ".lock")
    except OSError as error:
        reason = error.strerror or error
        raise AfaError(f"{place}: cannot be written ({reason}); set output_dir to a folder that can") from error
    if lock is None:
        raise AfaError(f"{place}: another benchmark runs these cells; wait for it, or choose another name=…")
    return lock


def _refuse_changed(cells: Sequence[Cell]) -> None:
    """Cells that were begun with other settings than the benchmark has now, or whose settings can't be read."""
    found = []
    for cell in cells:
        try:
            changes = _changes(cell)
        except AfaError as error:  # damaged, or of another version
            found.append(f"{cell.name}: {error}")
        else:
            found += [f"{cell.name}: begun with other settings: {'; '.join(changes)}"] if changes else []
    if found:
        raise AfaError("\n".join([*found, "choose another name=…, or delete these cells' folders"]))


def _changes(cell: Cell) -> list[str]:
    """Settings of a begun cell that differ from those of the benchmark now. Where it lies is none of them: a matrix may
    be moved, or called by another path."""
    resumed = cell.config.model_copy(update={"run": cell.config.run.model_copy(update={"resume": True})})
    found = changed_settings(cell.folder, resumed) if cell.started else []
    return [change for change in found if not change.startswith(("run.output_dir ", "evaluation.before_folder "))]


def _tell_changed(cells: Sequence[Cell]) -> None:
    """Cells of the report that were measured with other settings than CONFIG has now, which the report tells of.

    Not told: what only reading a measurement takes, and what a suite stands for, whose files need
    not be here. A cell whose config.yaml can't be read is passed over.
    """
    found: dict[str, list[str]] = {}
    for cell in (cell for cell in cells if cell.finished):
        sources = (cell.config.data.train, *cell.config.data.evaluation)
        of_suite = ("data.", "prompts.") if any(source.path.startswith(PREFIX) for source in sources) else ()
        untold = (*(f"evaluation.{name} " for name in READING_ONLY), *of_suite)
        changes = []
        with suppress(AfaError):
            changes = [change for change in _changes(cell) if not change.startswith(untold)]
        if changes:
            found.setdefault("; ".join(changes), []).append(cell.name)
    for told, names in found.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        tell(f"cell {names[0]}{more}: measured with other settings than CONFIG has now: {told}")


def _check_data(cells: Sequence[Cell], reference: str) -> dict[tuple[str, str], Work]:
    """Every data set read and every prompt built once, before anything runs; under each seed where the seed decides
    what is measured. Raises AfaError that names the cell."""
    seen: dict[str, tuple[Work, dict[str, Reviews], list[str]]] = {}
    told: dict[str, None] = {}
    found: dict[tuple[str, str], Work] = {}
    asks: dict[tuple[str, str, int], dict[str, Reviews]] = {}
    # What trains asks more of the same reviews, most of all where masks are compared.
    for cell in sorted(cells, key=lambda cell: (cell.kind == "prompted", not draws_masks(cell.config))):
        config = cell.config
        key = basis(config)
        if key not in seen:
            try:
                material = prepare(config, learns=cell.kind == "trained")
            except AfaError as error:
                raise AfaError(f"cell {cell.name}: {error}") from None
            evaluated = sum(len(examples) for examples in material.evaluation.values())
            reviews = {title: asked(prompt_sets) for title, prompt_sets in material.prompt_sets.items()}
            seen[key] = Work(len(material.train_prompts), 0, evaluated), reviews, data_notices(material)
        work, asks[cell.data_set, cell.arm, cell.seed], notices = seen[key]
        if (cell.data_set, cell.arm) in found:
            continue
        steps = planned_steps(config.training, work.reviews) if cell.kind == "trained" else 0
        found[cell.data_set, cell.arm] = replace(work, steps=steps)
        told |= dict.fromkeys(notices)
        for advice in advices(config, steps) if steps else ():  # a cell would say it in its log alone, as these notices
            tell(f"{cell.data_set}, {cell.arm}: {advice}")
    for notice in told:
        tell(notice)
    _check_same_reviews(asks, reference)
    return found


def _check_same_reviews(asks: Mapping[tuple[str, str, int], Mapping[str, Reviews]], reference: str) -> None:
    """Raises AfaError where an arm of a data set will answer other reviews than the reference: told before hours of
    training, not after."""
    for (data_set, arm, seed), sets in asks.items():
        others = asks.get((data_set, reference, seed), {})
        for title in (title for title in sets if title in others):
            check_same(sets[title], others[title], f"{data_set}, {title}: {arm} and {reference}, seed {seed}")


def _plan_table(cells: Sequence[Cell], works: dict[tuple[str, str], Work]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("Cell", "State", "Reviews", "Steps", "Passes a review", "Evaluated"):
        table.add_column(name, justify="left" if name in ("Cell", "State") else "right")
    for cell in cells:
        work = works[cell.data_set, cell.arm]
        trained = cell.kind == "trained"
        forward, backward = passes_per_review(cell.config)
        state = "done" if cell.finished else "begun" if cell.started else "to run"
        passes = f"{forward} forward, {backward} backward" if trained else "-"
        row = (cell.name, state, str(work.reviews) if trained else "-", str(work.steps) if trained else "-")
        table.add_row(*row, passes, str(work.evaluated))
    return table
