"""Which curves the report draws from metrics.jsonl: known ones first, with what they mean, then all others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afa_llm.evaluation.charts import LineChart, line_chart

X_KEYS = ("step", "global_step", "round")
_NOT_CURVES = frozenset((*X_KEYS, "time", "timestamp", "wall_time", "unix_time", "rank", "world_size", "epoch"))


@dataclass(frozen=True)
class Known:
    """A metric the report can explain; `keys` are the spellings it may have, `/` and `.` read as `_`."""

    group: str
    title: str
    meaning: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Curve:
    key: str
    title: str
    meaning: str
    chart: LineChart


KNOWN = (
    Known("Task", "Task loss", "Cross-entropy of the right label's answer, in nats. Should fall.",
          ("task_loss", "loss_task", "task")),
    Known("Task", "Training accuracy", "Share of the training reviews of a step answered rightly.",
          ("task_accuracy", "train_accuracy", "accuracy")),
    Known("Task", "Total loss", "All parts of the objective together.", ("loss", "total_loss", "objective")),
    Known("Feedback", "Reward", "Mean reward of the masks. Above all: it should move, and not only at the start.",
          ("reward", "reward_mean", "mean_reward")),
    Known("Feedback", "Reward spread", "Standard deviation of the rewards. Near 0, the masks teach nothing.",
          ("reward_std", "reward_spread", "std_reward")),
    Known("Feedback", "Adversary AUROC",
          "How well the adversary tells masked from clean reviews it has not trained on. Shaded: alarm; above, the "
          "reward saturates, below, it is noise.",
          ("adversary_auroc", "auroc", "adversary_held_out_auroc", "adversary_heldout_auroc", "detection_auroc")),
    Known("Feedback", "Advantage over random masks",
          "How much more surely the policy's masks are detected than random ones of the same size. At 0, the adversary "
          "only sees that something is hidden.",
          ("adversary_advantage_over_random", "advantage_over_random")),
    Known("Feedback", "Adversary loss", "Its own training loss, in nats.", ("adversary_loss", "loss_adversary")),
    Known("Feedback", "Policy-gradient loss", "Its value means little; a jump means instability.",
          ("policy_gradient_loss", "policy_gradient", "loss_policy_gradient", "pg_loss")),
    Known("Focus", "Focus entropy", "Normalised: 1 is even over words. A fall to 0 is a collapse onto one word.",
          ("focus_entropy", "entropy")),
    Known("Focus", "Sink mass", "Attention that goes to the first token and the template, before renormalising.",
          ("sink_mass",)),
    Known("Focus", "KL from the base", "How far the answers moved from the base, in nats.", ("kl", "kl_base")),
    Known("Optimisation", "Gradient norm", "Before clipping.", ("grad_norm", "gradient_norm")),
    Known("Optimisation", "Learning rate", "Of the adapter.", ("learning_rate", "lr")),
    Known("Optimisation", "Skipped groups", "Share of reviews whose masks all earned the same.",
          ("skipped_groups", "groups_skipped", "skipped_share")),
)  # fmt: skip

GROUPS = ("Task", "Feedback", "Focus", "Optimisation", "Other")


def training_curves(rows: Sequence[Mapping[str, Any]], alarms: tuple[float, float]) -> dict[str, list[Curve]]:
    """Group -> curves, in the order of GROUPS and KNOWN; groups without a curve are left out.

    Nested values are flattened with `/`. x is the row's step (or round), else its number. A key that a row lacks was
    not logged then; a key with null or NaN is a gap. `alarms`: adversary.auroc_low and auroc_high.
    """
    flat = [_flatten(row) for row in rows]
    found: dict[str, list[Curve]] = {group: [] for group in GROUPS}
    for key in _ordered_keys(flat):
        known = _known(key)
        chart = line_chart(_series(flat, key), alarms if known and known.title == "Adversary AUROC" else None)
        if chart:
            title, meaning = (known.title, known.meaning) if known else (key, "")
            found[known.group if known else "Other"].append(Curve(key, title, meaning, chart))
    return {group: curves for group, curves in found.items() if curves}


def _ordered_keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for row in rows for key in row if key not in _NOT_CURVES)
    places = {spelling: place for place, known in enumerate(KNOWN) for spelling in known.keys}
    return sorted(keys, key=lambda key: places.get(_spelling(key), len(KNOWN)))


def _known(key: str) -> Known | None:
    return next((known for known in KNOWN if _spelling(key) in known.keys), None)


def _spelling(key: str) -> str:
    return key.lower().replace("/", "_").replace(".", "_").removeprefix("train_").removeprefix("training_")


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float | None]]:
    series: list[tuple[float, float | None]] = []
    for number, row in enumerate(rows, start=1):
        if key in row:
            x = next((row[name] for name in X_KEYS if _is_number(row.get(name))), number)
            series.append((float(x), float(row[key]) if _is_number(row[key]) else None))
    return series


def _flatten(row: Mapping[str, Any], prefix: str = "") -> dict[str, float | None]:
    """Numbers and gaps of a row by path; texts, lists and truth values are no curves."""
    flat: dict[str, float | None] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}/"))
        elif value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            flat[f"{prefix}{key}"] = value
    return flat


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
