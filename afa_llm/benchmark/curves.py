"""Learning curves of the arms, and their focus against word frequency, from the files of finished cells.

`notes`: of each file that could not be read, and was left out, a sentence is put there.

Legend: N words of all measured reviews.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from afa_llm.benchmark.figures import LinesChart, lines_chart
from afa_llm.benchmark.outcomes import Outcome
from afa_llm.benchmark.results import Matrix
from afa_llm.data.word_forms import is_punctuation, normal_form
from afa_llm.errors import AfaError
from afa_llm.evaluation.focus_items import FocusItem, FocusPhase, read_focus_items
from afa_llm.evaluation.json_files import focus_path, read_json, word_counts_path
from afa_llm.evaluation.training_curves import read_metrics

LEARNING = (
    ("task_loss", "Task loss", "Cross-entropy of the right label's answer, in nats; of the training reviews."),
    ("train_accuracy", "Training accuracy", "Share of a step's training reviews that are answered rightly."),
    ("validation_loss", "Validation loss", "On reviews neither trained on nor reported, in nats."),
    ("label_drop_attended", "Fall of log p, attended words hidden", "High: the words looked at matter to the answer."),
    ("adversary_auroc", "Adversary AUROC", "Telling masked from clean reviews that it has not learned from."),
)
BUCKETS = 40
LEAST_WORDS = 20
LARGEST = 1e300
PHASES = {"before": 0, "after": 1}


@dataclass(frozen=True)
class Figure:
    """A chart with its words. `legend`: whether its lines must be named beside it."""

    title: str
    meaning: str
    chart: LinesChart
    notes: tuple[str, ...] = ()


def learning_curves(matrix: Matrix, data_set: str, titles: Mapping[str, str], notes: list[str]) -> list[Figure]:
    """One figure for each metric that some arm logged: a line for each arm, the mean over its seeds."""
    styles = {title: place for place, title in enumerate(titles.values())}
    rows = {arm: [_metrics(outcome, notes) for outcome in matrix.of(data_set, arm).values()] for arm in titles}
    found = []
    for key, title, meaning in LEARNING:
        series = {titles[arm]: _mean_series(of_arm, key) for arm, of_arm in rows.items()}
        chart = lines_chart(series, styles)
        if chart:
            found.append(Figure(title, meaning, chart))
    return found


def _metrics(outcome: Outcome, notes: list[str]) -> list[dict[str, Any]]:
    found: list[str] = []
    rows = read_metrics(outcome.cell.folder / "metrics.jsonl", found)
    kept = [row for row in rows if _is_number(row.get("step"))]
    if len(kept) < len(rows):
        found.append(f"metrics.jsonl: {len(rows) - len(kept)} lines name no step and were left out.")
    notes += [f"{outcome.cell.folder}/{note}" for note in found]
    return kept


def _mean_series(runs: Sequence[Sequence[Mapping[str, Any]]], key: str) -> list[tuple[float, float | None]]:
    """Mean over seeds at each step, in at most BUCKETS buckets of neighbouring steps."""
    at: dict[float, list[float]] = defaultdict(list)
    for row in (row for run in runs for row in run if _is_number(row.get(key))):
        at[row["step"]].append(row[key])
    steps = sorted(at)
    size = max(1, math.ceil(len(steps) / BUCKETS))
    parts = [steps[start : start + size] for start in range(0, len(steps), size)]
    return [(sum(part) / len(part), float(np.mean([y for step in part for y in at[step]]))) for part in parts]


def _is_number(value: Any) -> bool:
    """Finite, and no whole number of hundreds of digits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def focus_by_frequency(
    matrix: Matrix, data_set: str, name: str, titles: Mapping[str, str], notes: list[str]
) -> list[Figure]:
    """For each trained arm: focus on a word, in multiples of an even share, against its count in the training reviews.

    Words of all seeds together, in buckets of counts; the rank correlation with the count (Spearman 1904) stands
    beside. Falling lines mean a focus on rare words. Words of punctuation are left out. All figures have the same axes.
    """
    drawn = []
    for arm, title in titles.items():
        words = [row for outcome in matrix.of(data_set, arm).values() for row in _words(outcome, name, notes)]
        paired = [row for row in words if row[2] is not None]
        if not paired:
            continue
        count_N, before_N, after_N = (np.array(column, dtype=np.float64) for column in zip(*paired, strict=True))
        series = {"before": _binned(count_N, before_N), "after": _binned(count_N, after_N)}
        rho = [_rank_correlation(count_N, focus_N) for focus_N in (before_N, after_N)]
        note = f"ρ = {rho[0]:+.2f} before, {rho[1]:+.2f} after".replace("-", "−")
        drawn.append((title, f"{len(paired):,} words", series, note))
    every = [lines for _, _, series, _ in drawn for lines in series.values()]
    charts = [lines_chart(series, PHASES, level_at=1.0, beside=every) for _, _, series, _ in drawn]
    return [
        Figure(title, meaning, chart, (note,))
        for (title, meaning, _, note), chart in zip(drawn, charts, strict=True)
        if chart
    ]


def _words(outcome: Outcome, name: str, notes: list[str]) -> list[tuple[int, float, float | None]]:
    """(training count, focus before, focus after) of each word, in multiples of 1 / number of words."""
    counts_at, found = word_counts_path(outcome.cell.folder), []
    if not counts_at.exists():
        return []
    try:
        counts = _word_counts(counts_at)
    except AfaError as error:
        notes.append(f"{error}; {_mend(outcome)}")
        return []
    for item in _focus_items(outcome, name, notes):
        for word, (start, end) in enumerate(item.words):
            text = item.text[start:end]
            if not is_punctuation(text):
                after = None if item.after is None else len(item.words) * item.after.focus[word]
                found.append((counts.get(normal_form(text), 0), len(item.words) * item.before.focus[word], after))
    return found


def _word_counts(path: Path) -> dict[str, int]:
    """Normal form -> count. Raises AfaError where the file holds anything else."""
    counts = read_json(path)
    if not isinstance(counts, dict) or not all(_is_number(count) and count >= 0 for count in counts.values()):
        raise AfaError(f"{path}: not the counts of words that a run writes")
    return counts


def _focus_items(outcome: Outcome, name: str, notes: list[str]) -> list[FocusItem]:
    """None where the focus was not measured, or can't be read."""
    path = focus_path(outcome.cell.folder, name)
    try:
        return read_focus_items(path) if path.exists() else []
    except AfaError as error:
        notes.append(f"{error}; {_mend(outcome)}")
        return []


def _mend(outcome: Outcome) -> str:
    return f"left out of the figures; delete the folder {outcome.cell.folder} and run the benchmark again"


def _binned(count_N: np.ndarray, focus_N: np.ndarray) -> list[tuple[float, float | None]]:
    """(log10(1 + count), mean focus) of buckets of counts, each twice as wide as the last; small ones left out."""
    bucket_N = np.floor(np.log2(1 + count_N)).astype(int)
    found: list[tuple[float, float | None]] = []
    for bucket in np.unique(bucket_N):
        inside = bucket_N == bucket
        if inside.sum() >= LEAST_WORDS:
            found.append((float(np.log10(1 + count_N[inside]).mean()), float(focus_N[inside].mean())))
    return found


def _rank_correlation(count_N: np.ndarray, focus_N: np.ndarray) -> float:
    if np.ptp(count_N) == 0 or np.ptp(focus_N) == 0:
        return 0.0
    return float(stats.spearmanr(count_N, focus_N).statistic)


def side_by_side(reference: Outcome, arm: Outcome, name: str, notes: list[str]) -> list[FocusItem]:
    """Reviews with the reference's final focus as `before` and the arm's as `after`, where both read the same words."""
    ours, theirs = (
        {item.example_id: item for item in _focus_items(outcome, name, notes)} for outcome in (arm, reference)
    )
    found = []
    for example_id, old in theirs.items():
        new = ours.get(example_id)
        if new and new.words == old.words and new.text == old.text:
            found.append(
                FocusItem(name, example_id, old.text, old.words, old.label, old.rationale, _final(old), _final(new))
            )
    return found


def _final(item: FocusItem) -> FocusPhase:
    return item.after or item.before
