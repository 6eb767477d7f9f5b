"""`report.html`: one self-contained page made from the files of a run's folder.

Reads `results.json` (required), `metrics.jsonl`, `items/focus_*.jsonl`, and, for data sets without the latter,
`items/answers_*.jsonl`. Everything is escaped by the template engine; the page forbids itself any network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup

from afa_llm.errors import AfaError
from afa_llm.evaluation import charts, json_files, report_suites, report_tables
from afa_llm.evaluation.comparison import match
from afa_llm.evaluation.focus_items import FocusItem, FocusPhase, read_focus_items
from afa_llm.evaluation.gallery import SHADES, Shelf, shelves
from afa_llm.evaluation.prompted_sentiment import ItemRecord, read_items
from afa_llm.evaluation.training_curves import read_metrics, training_curves
from afa_llm.evaluation.verdict import nothing, points, verdict
from afa_llm.evaluation.visible_text import visible

REPORT = "report.html"
ALARMS = (0.52, 0.98)
"""Alarm bounds of the adversary's AUROC where the configuration in results.json names none."""


@dataclass(frozen=True)
class RunFolder:
    """What was found on disk. `notes`: what could not be read, one sentence each; the report shows them."""

    results: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    items: Mapping[str, Sequence[FocusItem]]
    notes: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    data_set: str
    shelves: Sequence[Shelf]
    has_focus: bool
    has_rationale: bool


def write_report(folder: Path) -> Path:
    """Makes `report.html` in a run's folder. Raises AfaError where results.json is missing or no results."""
    page = render(read_run(folder))
    json_files.write_text(folder / REPORT, page)
    return folder / REPORT


def rewrite_report(folder: Path) -> Path:
    """As `write_report`, for files that a user may have changed. Raises AfaError where they aren't what a run writes,
    and where the page can't be written."""
    try:
        return write_report(folder)
    except OSError as error:
        raise AfaError(f"{folder / REPORT}: cannot be written: {error.strerror or error}") from None
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, UndefinedError) as error:
        raise AfaError(
            f"{folder / 'results.json'}: not as a run writes it ({type(error).__name__}: {error}); restore it, or "
            "measure again with `afa evaluate`"
        ) from error


def read_run(folder: Path) -> RunFolder:
    """The files of a run. Only results.json must be there; what else is broken is noted and left out."""
    if folder.is_file():
        raise AfaError(f"{folder}: a file, not the folder of a run; name the folder, such as runs/demo")
    results = json_files.read_json(folder / "results.json")
    if not isinstance(results, dict) or results.get("schema") != 1:
        raise AfaError(
            f"{folder / 'results.json'}: not the results of a run (schema 1); measure again with `afa evaluate`"
        )
    notes: list[str] = []
    metrics = read_metrics(folder / "metrics.jsonl", notes)
    items = {}
    names = [entry["data_set"] for entry in results.get("headline") or []]
    for name in dict.fromkeys([*names, *(entry["data_set"] for entry in results.get("focus") or [])]):
        try:
            items[name] = _gallery_items(folder, name, results)
        except AfaError as error:
            notes.append(str(error))
    return RunFolder(results, metrics, items, notes)


def render(run: RunFolder) -> str:
    """The page as text."""
    assets = resources.files("afa_llm") / "assets" / "report"
    with resources.as_file(assets) as place:
        environment = Environment(
            loader=FileSystemLoader(place), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, finalize=_shown,
        )  # fmt: skip
        css = Markup((place / "report.css").read_text(encoding="utf-8"))
        return environment.get_template("report.html.j2").render(css=css, **page_content(run))


def page_content(run: RunFolder) -> dict[str, Any]:
    """Everything the template shows, as text and geometry."""
    results = run.results
    verdicts = [verdict(entry, results.get("confidence", 0.95)) for entry in results.get("headline") or []]
    scores = report_tables.score_rows(results)
    rows, axis = report_tables.headline_rows(results)
    adversary = ((results.get("run") or {}).get("config") or {}).get("adversary") or {}
    alarms = (adversary.get("auroc_low", ALARMS[0]), adversary.get("auroc_high", ALARMS[1]))
    return {
        "run": results.get("run") or {},
        "results": results,
        "verdicts": verdicts or [nothing("Nothing was measured", "No review was answered in this run.")],
        "headline_mean": results.get("headline_mean"),
        "headline_rows": rows,
        "axis": axis,
        "score_columns": report_tables.SCORE_COLUMNS,
        "score_rows": scores,
        "score_blocks": report_tables.score_blocks(scores),
        "group_rows": report_tables.group_rows(results),
        "focus_tables": report_tables.focus_tables(results),
        "pair_tables": report_suites.pair_tables(results),
        "behaviour_tables": report_suites.behaviour_tables(results),
        "slice_tables": report_suites.slice_tables(results),
        "curves": training_curves(run.metrics, alarms),
        "alarms": alarms,
        "steps": len(run.metrics),
        "galleries": _galleries(run),
        "facts": _facts(results),
        "config_text": json.dumps((results.get("run") or {}).get("config") or {}, indent=2, ensure_ascii=False),
        "notes": run.notes,
        "points": points,
        "chart": charts,
        "shades": range(SHADES + 1),
        "paired": any(entry.get("after") for entry in results.get("headline") or []),
    }


def _galleries(run: RunFolder) -> list[Gallery]:
    most = 6 if len(run.items) == 1 else 3
    labels = run.results.get("labels") or []
    return [
        Gallery(
            data_set=name,
            shelves=[shelf for shelf in shelves(items, labels, most) if shelf.found],
            has_focus=any(item.words for item in items),
            has_rationale=any(item.rationale for item in items),
        )
        for name, items in run.items.items()
        if items
    ]


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader needs to know or to run it again, as (name, text)."""
    run = results.get("run") or {}
    versions = ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items() if version)
    seconds = "; ".join(f"{name} {_duration(value)}" for name, value in (run.get("seconds") or {}).items())
    quarantined = results.get("quarantined") or {}
    facts = [
        ("Started", run.get("started")),
        ("Finished", run.get("finished")),
        ("Device", run.get("device")),
        ("Processes", run.get("world_size")),
        ("Seed", run.get("seed")),
        ("Configuration digest", run.get("config_digest")),
        ("Versions", versions),
        ("Time", seconds),
        ("Rows set aside", "; ".join(f"{name} {count}" for name, count in quarantined.items()) or "none"),
    ]
    training = results.get("training") or {}
    facts += [(f"Training: {key}", _plain_text(value)) for key, value in training.items()]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _plain_text(value: Any) -> str:
    if isinstance(value, float):
        return charts.short(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _duration(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)):
        return "–"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _gallery_items(folder: Path, data_set: str, results: Mapping[str, Any]) -> list[FocusItem]:
    path = json_files.focus_path(folder, data_set)
    if path.exists():
        return read_focus_items(path)
    template, calibration = results.get("train_template") or "", results.get("headline_calibration") or "none"
    paths = [json_files.answers_path(folder, data_set, template, phase) for phase in ("before", "after")]
    if not all(path.exists() for path in paths):
        return []
    pairs = match(read_items(paths[0]), read_items(paths[1]))
    return [
        _without_focus(old, new, calibration) for old, new in pairs if old.right(calibration) != new.right(calibration)
    ]


def _without_focus(old: ItemRecord, new: ItemRecord, calibration: str) -> FocusItem:
    """A review whose answer changed, for data sets without focus."""
    before, after = (FocusPhase((), item.probability[calibration], item.prediction[calibration]) for item in (old, new))
    return FocusItem(old.data_set, old.example_id, old.text, (), old.label, None, before, after)


def _shown(value: Any) -> Any:
    """Applied to every expression of the template, before escaping."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
