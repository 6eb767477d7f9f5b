"""Which curves the report draws from metrics.jsonl: known ones first, with what they mean, then all others."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afa_llm.evaluation.charts import LineChart, line_chart

X_KEYS = ("step",)
_NOT_CURVES = frozenset((*X_KEYS, "seconds", "step_seconds", "epoch"))


@dataclass(frozen=True)
class Known:
    """A metric the report can explain; `keys` are the spellings it may have, `/` and `.` read as `_`."""

    group: str
    key: str
    title: str
    meaning: str


@dataclass(frozen=True)
class Curve:
    key: str
    title: str
    meaning: str
    chart: LineChart


KNOWN = (
    Known("Task", "task_loss", "Task loss", "Cross-entropy of the right label's answer, in nats. Should fall."),
    Known("Task", "train_accuracy", "Training accuracy", "Share of a step's training reviews answered rightly."),
    Known("Task", "masked_task_loss", "Masked task loss", "The same cross-entropy where words are hidden, in nats."),
    Known("Task", "masked_base_kl", "Masked answers from the base's",
          "How far the answers, where words are hidden, moved from the base's on the same views, in nats."),
    Known("Task", "masked_consistency_kl", "Masked answers from the whole review's",
          "How far the answers, where words are hidden, are from the model's own on the whole review, in nats."),
    Known("Feedback", "reward", "Reward", "Mean reward of the masks. It should move, and not only at the start."),
    Known("Feedback", "label_drop_attended", "Fall of log p, attended words hidden",
          "How much log p(label) falls when the words it looks at are hidden. High: the focus matters to the answer."),
    Known("Feedback", "label_drop_unattended", "Fall of log p, ignored words hidden",
          "The same for words it ignores. Should stay near 0: nothing that matters is overlooked."),
    Known("Feedback", "adversary_auroc", "Adversary AUROC",
          "How well the adversary tells masked from clean reviews it has not trained on. Shaded: alarm; above, the "
          "reward saturates, below, it is noise."),
    Known("Feedback", "adversary_advantage_over_random", "Advantage over random masks",
          "How much better the policy's masks reach their aim with the adversary than random ones of the same size, in "
          "probability, on held-out reviews. At 0, the adversary only sees that something is hidden."),
    Known("Feedback", "p_detect", "P(detected)", "Mean probability that the adversary gives to the masked view."),
    Known("Feedback", "adversary_loss", "Adversary loss", "Its own training loss, in nats."),
    Known("Feedback", "kept_share", "Masks that teach", "Share of masks whose review gave different rewards."),
    Known("Focus", "focus_entropy", "Focus entropy", "Normalised: 1 is even over words. A fall to 0 is a collapse."),
    Known("Focus", "sink_mass", "Sink mass", "Attention on the first token, before renormalising."),
    Known("Focus", "word_mass", "Word mass", "Attention on the review's words, before renormalising."),
    Known("Focus", "word_mass_kl", "Word mass from the base", "How far that share moved from the base's, in nats."),
    Known("Focus", "kl", "KL from the base", "How far the next-token distribution moved from the base, in nats."),
    Known("Optimisation", "grad_norm", "Gradient norm", "Before clipping."),
    Known("Optimisation", "learning_rate", "Learning rate", "Of the adapter."),
    Known("Optimisation", "skipped_steps", "Skipped steps", "Steps not taken so far: their gradient was not finite."),
)  # fmt: skip

GROUPS = ("Task", "Feedback", "Focus", "Optimisation", "Other")


def training_curves(rows: Sequence[Mapping[str, Any]], alarms: tuple[float, float]) -> dict[str, list[Curve]]:
    """Group -> curves, in the order of GROUPS and KNOWN; groups without a curve are left out.

    x is the row's step, else its number. A key that a row lacks was
    not logged then; a key with null or NaN is a gap. `alarms`: adversary.auroc_low and auroc_high.
    """
    flat = [_numbers(row) for row in rows]
    found: dict[str, list[Curve]] = {group: [] for group in GROUPS}
    for key in _ordered_keys(flat):
        known = _known(key)
        chart = line_chart(_series(flat, key), alarms if key == "adversary_auroc" else None)
        if chart:
            title, meaning = (known.title, known.meaning) if known else (key, "")
            found[known.group if known else "Other"].append(Curve(key, title, meaning, chart))
    return {group: curves for group, curves in found.items() if curves}


def _ordered_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for row in rows for key in row if key not in _NOT_CURVES)
    places = {known.key: place for place, known in enumerate(KNOWN)}
    return sorted(keys, key=lambda key: places.get(key, len(KNOWN)))


def _known(key: str) -> Known | None:
    return next((known for known in KNOWN if known.key == key), None)


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float | None]]:
    series: list[tuple[float, float | None]] = []
    for number, row in enumerate(rows, start=1):
        if key in row:
            x = next((row[name] for name in X_KEYS if _is_number(row.get(name))), number)
            series.append((float(x), float(row[key]) if _is_number(row[key]) else None))
    return series


def _numbers(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Numbers and gaps of a row; texts, lists and truth values are no curves."""
    return {
        key: value
        for key, value in row.items()
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    }


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def read_metrics(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl that can be read: a run that was killed may leave half a line. `notes`: what could not
    be, one sentence each, is put there."""
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        notes.append(f"{path.name}: cannot be read: {error.strerror or error}.")
        return []
    rows, bad = [], []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            row = line
        if isinstance(row, dict):
            rows.append(row)
        elif row is not None:
            bad.append(number)
    if bad:
        notes.append(
            f"{path.name}: {len(bad)} lines are no JSON objects and were left out, the first is line {bad[0]}."
        )
    return rows
