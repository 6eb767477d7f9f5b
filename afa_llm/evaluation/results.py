"""The content of `results.json`: everything a run measured, with what is needed to measure it again.

What each entry means is said in SCHEMA below, path by path; a test holds the two together. An estimate is
`{value, low, high, count}`: a value, its interval at `confidence`, and the number of reviews below it. Shares are in
[0, 1]. What could not be computed is null. Where only one phase was measured, `after` and comparisons are null.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from afa_llm.errors import AfaError
from afa_llm.evaluation.comparison import clusters_per_review, compare, differences_per_review, headline
from afa_llm.evaluation.estimates import Resampling
from afa_llm.evaluation.focus_quality import FocusScores, compare_focus
from afa_llm.evaluation.json_files import plain
from afa_llm.evaluation.prompted_sentiment import ItemRecord, score_items
from afa_llm.evaluation.significance import mean_of_sets
from afa_llm.evaluation.slices import Slice
from afa_llm.evaluation.suite_results import SUITE_SCHEMA, suite_results

PACKAGES = ("afa-llm", "torch", "transformers", "peft", "bitsandbytes", "deepspeed", "vllm")

SCHEMA = {
    "schema": "version of this layout: 1",
    "run.name": "run.name of the configuration",
    "run.config_digest": "first 16 hex digits of the SHA-256 of the resolved configuration",
    "run.config.*": "the resolved configuration",
    "run.versions.*": "installed version of each package that matters, null where absent",
    "run.seed": "run.seed",
    "run.world_size": "processes that trained",
    "run.device": "what it ran on",
    "run.started": "ISO 8601, UTC",
    "run.finished": "ISO 8601, UTC",
    "run.seconds.*": "wall time of each phase; of training over all parts of a run that was resumed",
    "labels[]": "label names, in the order of every per-label list",
    "confidence": "level of all intervals",
    "train_template": "template that was trained with",
    "headline_calibration": "calibration that the headline compares, fixed before the run",
    "scores[].data_set": "name of the data set",
    "scores[].template": "name of the template",
    "scores[].calibration": "none, contextual, domain or batch",
    "scores[].before": "Scores before training (evaluation.scores), fields in the docstring there",
    "scores[].after": "Scores after training",
    "scores[].comparison.difference": "estimate: accuracy after − before, paired bootstrap",
    "scores[].comparison.test.won": "reviews wrong before and right after",
    "scores[].comparison.test.lost": "reviews right before and wrong after",
    "scores[].comparison.test.p_value": "exact two-sided McNemar test",
    "scores[].comparison.detectable": "smallest difference found with 80 % power at the discordance seen",
    "headline[].data_set": "name of the data set",
    "headline[].calibration": "the headline calibration",
    "headline[].templates[]": "templates averaged over",
    "headline[].left_out": "reviews that are missing under some template",
    "headline[].before": "estimate: accuracy averaged over templates, before",
    "headline[].after": "estimate: the same after",
    "headline[].difference": "estimate: after − before, paired bootstrap over reviews",
    "headline[].p_value": "exact sign-flip test over reviews",
    "headline[].won": "reviews right under more templates than before",
    "headline[].lost": "reviews right under fewer templates than before",
    "headline[].detectable": "as above, at the size of changes seen",
    "headline[].ranking.before": "estimate: AUROC averaged over templates, before; ranking is null where all reviews "
    "have one label, and with one phase",
    "headline[].ranking.after": "estimate: the same after",
    "headline[].ranking.difference": "estimate: after − before, paired bootstrap over reviews or pairs",
    "headline[].train_template.template": "the template trained with; null if it was not measured on this data set",
    "headline[].train_template.before": "estimate: accuracy (Wilson)",
    "headline[].train_template.after": "estimate: accuracy (Wilson)",
    "headline[].train_template.comparison": "as in scores[].comparison",
    "headline_mean": "estimate: unweighted mean of the difference over data sets; null for fewer than two",
    "focus[].data_set": "name of the data set",
    "focus[].reviews": "reviews whose focus was measured",
    "focus[].metrics[].metric": "name, see focus_metrics.METRICS",
    "focus[].metrics[].before": "estimate: mean over reviews, bootstrap over reviews or pairs",
    "focus[].metrics[].after": "estimate: mean over reviews",
    "focus[].metrics[].difference": "estimate: after − before over reviews that have both",
    "focus[].metrics[].chance_before": "what a blind focus would get on the same reviews and model",
    "focus[].metrics[].chance_after": "the same after training",
    "focus[].metrics[].left_out": "reviews for which the metric is not defined",
    **SUITE_SCHEMA,
    "quarantined.*": "rows set aside, by data set",
    "training.*": "what the trainer says of itself; null where nothing was trained",
}
"""Path -> meaning. `[]` stands for each element of a list, `.*` for anything below."""


@dataclass(frozen=True)
class RunFacts:
    """What is known about a run besides its measurements. `config`: the resolved configuration as plain values."""

    name: str
    config: Mapping[str, Any]
    seed: int
    world_size: int
    device: str
    started: str
    finished: str
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Everything that was measured. `after` is none, as are the second halves of `focus`, where only one phase was.

    `focus`: data set -> scores before and after; `focus_clusters`: what each of those reviews belongs to (none: each is
    alone). `quarantined`: data set -> rows set aside. `slices`: data set -> example id -> slices it is in.
    """

    before: Sequence[ItemRecord]
    after: Sequence[ItemRecord] | None = None
    focus: Mapping[str, tuple[FocusScores, FocusScores | None]] = field(default_factory=dict)
    quarantined: Mapping[str, int] = field(default_factory=dict)
    training: Mapping[str, Any] | None = None
    slices: Mapping[str, Mapping[str, Sequence[Slice]]] = field(default_factory=dict)
    focus_clusters: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """How measurements are read: data.labels, prompts.train, evaluation.calibrations and headline_calibration."""

    labels: tuple[str, ...]
    train_template: str
    calibrations: tuple[str, ...]
    headline_calibration: str
    resampling: Resampling


def build_results(facts: RunFacts, measured: Measured, reading: Reading) -> dict[str, Any]:
    """`results.json` as plain values. Raises AfaError where before and after were not measured on the same items."""
    if reading.headline_calibration not in reading.calibrations:
        raise AfaError(
            f"evaluation.headline_calibration: {reading.headline_calibration!r} is not measured; "
            f"set one of {', '.join(reading.calibrations)}, or add it to evaluation.calibrations"
        )
    sets = list(dict.fromkeys(item.data_set for item in measured.before))
    _same_sets(sets, measured)
    scores = [row for name in sets for row in _score_rows(name, measured, reading)]
    content = {
        "schema": 1,
        "run": run_facts(facts),
        "labels": reading.labels,
        "confidence": reading.resampling.confidence,
        "train_template": reading.train_template,
        "headline_calibration": reading.headline_calibration,
        "scores": scores,
        "headline": [_headline(name, measured, reading, scores) for name in sets],
        "headline_mean": _headline_mean(sets, measured, reading),
        "focus": [_focus(name, measured, reading.resampling) for name in measured.focus],
        **_suite_results(sets, measured, reading),
        "quarantined": measured.quarantined,
        "training": measured.training,
    }
    return plain(content)


def run_facts(facts: RunFacts) -> dict[str, Any]:
    """The `run` entry."""
    digest = config_digest(facts.config)
    return plain({**vars(facts), "config_digest": digest, "versions": library_versions()})


def config_digest(config: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the configuration as JSON with sorted keys."""
    text = json.dumps(plain(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def library_versions() -> dict[str, str | None]:
    """Installed versions of PACKAGES; None where one is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _of(items: Sequence[ItemRecord] | None, data_set: str, template: str | None = None) -> list[ItemRecord]:
    return [i for i in items or () if i.data_set == data_set and template in (None, i.template)]


def _score_rows(data_set: str, measured: Measured, reading: Reading) -> list[dict[str, Any]]:
    """One row per template and calibration of a data set."""
    rows = []
    classes, how = len(reading.labels), reading.resampling
    for template in dict.fromkeys(item.template for item in _of(measured.before, data_set)):
        before, after = _of(measured.before, data_set, template), _of(measured.after, data_set, template)
        for calibration in reading.calibrations:
            paired = measured.after is not None
            rows.append(
                {
                    "data_set": data_set,
                    "template": template,
                    "calibration": calibration,
                    "before": score_items(before, calibration, classes, how.confidence),
                    "after": score_items(after, calibration, classes, how.confidence) if paired else None,
                    "comparison": compare(before, after, calibration, how) if paired else None,
                }
            )
    return rows


def _headline(
    data_set: str, measured: Measured, reading: Reading, scores: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    calibration = reading.headline_calibration
    after = None if measured.after is None else _of(measured.after, data_set)
    found = headline(_of(measured.before, data_set), after, calibration, reading.resampling)
    key = (data_set, reading.train_template, calibration)
    row = next((r for r in scores if (r["data_set"], r["template"], r["calibration"]) == key), None)
    trained = row and {
        "template": row["template"],
        "before": row["before"].accuracy,
        "after": row["after"].accuracy if row["after"] else None,
        "comparison": row["comparison"],
    }
    return {**vars(found), "train_template": trained}


def _headline_mean(sets: Sequence[str], measured: Measured, reading: Reading) -> Any:
    if measured.after is None or len(sets) < 2:
        return None
    pairs = [(_of(measured.before, name), _of(measured.after, name)) for name in sets]
    how = reading.resampling
    changes = [differences_per_review(old, new, reading.headline_calibration) for old, new in pairs]
    clusters = [clusters_per_review(old) for old, _ in pairs]
    kept = [(change_N, names) for change_N, names in zip(changes, clusters, strict=True) if len(change_N)]
    if len(kept) < 2:
        return None
    changes_kept, clusters_kept = map(list, zip(*kept, strict=True))
    return mean_of_sets(changes_kept, how.samples, how.confidence, how.seed, clusters_kept)


def _focus(data_set: str, measured: Measured, how: Resampling) -> dict[str, Any]:
    before, after = measured.focus[data_set]
    reviews = len(before.removal.prediction_N)
    clusters = measured.focus_clusters.get(data_set) or [str(review) for review in range(reviews)]
    return {"data_set": data_set, "reviews": reviews, "metrics": compare_focus(before, after, clusters, how)}


def _suite_results(sets: Sequence[str], measured: Measured, reading: Reading) -> dict[str, list[Any]]:
    """Pairs, behavioural tests and slices of every data set, under the headline calibration."""
    found: dict[str, list[Any]] = {"pairs": [], "behaviour": [], "slices": []}
    for name in sets:
        templates = list(dict.fromkeys(item.template for item in _of(measured.before, name)))
        main = reading.train_template if reading.train_template in templates else templates[0]
        for template in templates:
            before = _of(measured.before, name, template)
            after = None if measured.after is None else _of(measured.after, name, template)
            slices = measured.slices.get(name, {}) if template == main else {}
            rows = suite_results(before, after, slices, reading.headline_calibration, reading.resampling)
            found = {kind: found[kind] + rows[kind] for kind in found}
    return found


def _same_sets(sets: Sequence[str], measured: Measured) -> None:
    if measured.after is None:
        return
    odd = sorted({item.data_set for item in measured.after} ^ set(sets))
    if odd:
        raise AfaError(f"data set {odd[0]!r} was measured in one phase only; measure both phases on the same data")
