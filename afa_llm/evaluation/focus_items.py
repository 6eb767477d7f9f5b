"""Per-review word focus before and after, on disk for the report and for anyone's own analysis.

`items/focus_<data set>.jsonl`, one review a line:
`{data_set, example_id, text, words: [[start, end], …], label, rationale: [0..1, …] | null,
  before: {focus: […], probabilities: […], prediction, metrics: {name: value}}, after: {…} | null}`.
`focus` has one number per word and sums to 1; `probabilities` one per label, of the clean prompt, uncalibrated;
`metrics` the measures of evaluation/focus_metrics.py that are defined for this review.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from afa_llm.errors import AfaError
from afa_llm.evaluation import json_files
from afa_llm.evaluation.estimates import Floats
from afa_llm.evaluation.focus_quality import FocusScores
from afa_llm.records import Example


@dataclass(frozen=True)
class FocusPhase:
    """Focus and answer of one review in one phase. `metrics`: name -> value, of those that are defined for it; none in
    files written before they were kept."""

    focus: tuple[float, ...]
    probabilities: tuple[float, ...]
    prediction: int
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FocusItem:
    """Producer: focus_items. Consumers: report, terminal."""

    data_set: str
    example_id: str
    text: str
    words: tuple[tuple[int, int], ...]
    label: int
    rationale: tuple[float, ...] | None
    before: FocusPhase
    after: FocusPhase | None


def focus_items(
    data_set: str,
    examples: Sequence[Example],
    before: tuple[Sequence[Floats], FocusScores],
    after: tuple[Sequence[Floats], FocusScores] | None,
) -> list[FocusItem]:
    """Items of one data set; `before` and `after` are the focus of each review and its scores."""
    return [
        FocusItem(
            data_set=data_set,
            example_id=example.example_id,
            text=example.text,
            words=example.words,
            label=example.label,
            rationale=example.rationale,
            before=_phase(before, row),
            after=_phase(after, row) if after else None,
        )
        for row, example in enumerate(examples)
    ]


def read_focus_items(path: Path) -> list[FocusItem]:
    """The items of a file. Raises AfaError that names the record where one does not have the fields or their shape."""
    return [_item(values, f"{path}: record {number}") for number, values in enumerate(json_files.read_lines(path), 1)]


def _phase(reading: tuple[Sequence[Floats], FocusScores], row: int) -> FocusPhase:
    focus_N, scores = reading
    focus_W = np.asarray(focus_N[row], dtype=np.float64)
    return FocusPhase(
        focus=tuple((focus_W / focus_W.sum()).tolist()) if len(focus_W) else (),
        probabilities=tuple(scores.removal.probability_NC[row].tolist()),
        prediction=int(scores.removal.prediction_N[row]),
        metrics={name: float(of_N[row]) for name, of_N in scores.values.items() if math.isfinite(of_N[row])},
    )


def _item(values: dict[str, Any], where: str) -> FocusItem:
    try:
        item = FocusItem(
            data_set=str(values["data_set"]),
            example_id=str(values["example_id"]),
            text=str(values["text"]),
            words=tuple((int(start), int(end)) for start, end in values["words"]),
            label=int(values["label"]),
            rationale=None if values["rationale"] is None else tuple(float(x) for x in values["rationale"]),
            before=_phase_of(values["before"]),
            after=None if values["after"] is None else _phase_of(values["after"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise AfaError(f"{where}: not a focus item: {type(error).__name__} {error}") from None
    _check_numbers(item, where)
    lists = [item.before.focus, item.rationale, item.after.focus if item.after else None]
    if any(row is not None and len(row) != len(item.words) for row in lists):
        raise AfaError(f"{where}: focus or rationale does not have one number per word")
    return item


def _check_numbers(item: FocusItem, where: str) -> None:
    phases = [phase for phase in (item.before, item.after) if phase]
    numbers = [x for phase in phases for x in (*phase.focus, *phase.probabilities)] + list(item.rationale or ())
    if not all(math.isfinite(x) and x >= 0 for x in numbers):
        raise AfaError(f"{where}: focus, probabilities and rationale must be numbers from 0 up")
    if not all(math.isfinite(value) for phase in phases for value in phase.metrics.values()):
        raise AfaError(f"{where}: metrics must be numbers")


def _phase_of(values: dict[str, Any]) -> FocusPhase:
    return FocusPhase(
        focus=tuple(float(x) for x in values["focus"]),
        probabilities=tuple(float(x) for x in values["probabilities"]),
        prediction=int(values["prediction"]),
        metrics={str(name): float(value) for name, value in values.get("metrics", {}).items()},
    )
