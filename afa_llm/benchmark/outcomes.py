"""What a finished cell measured, read from its folder (config.yaml, results.json, items/)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from afa_llm.benchmark.by_review import SetValues
from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.same_reviews import fingerprint
from afa_llm.benchmark.statistics import SetAnswers
from afa_llm.data.checklist import kind_of
from afa_llm.errors import AfaError
from afa_llm.evaluation.comparison import clusters_of
from afa_llm.evaluation.focus_items import read_focus_items
from afa_llm.evaluation.focus_metrics import METRICS
from afa_llm.evaluation.json_files import answers_path, focus_path, read_json
from afa_llm.evaluation.pairs import in_order
from afa_llm.evaluation.prompted_sentiment import ItemRecord, log_probabilities, read_items
from afa_llm.evaluation.scores import auroc

ACCURACY, AUROC, WORST_GROUP, RARE_WORD = "accuracy", "auroc", "worst_group", "rare_word"
PAIRS, PAIR_ORDER = "pair_consistency", "pair_order"
SHARES = (ACCURACY, WORST_GROUP, RARE_WORD, PAIRS, PAIR_ORDER)
"""Metrics that are told in percent."""
BEHAVIOUR = "passed_"
"""Begins the names of CheckList pass rates: passed_<kind>_<test>."""
TITLES = {
    ACCURACY: "Accuracy",
    AUROC: "AUROC",
    WORST_GROUP: "Accuracy, worst group",
    RARE_WORD: "Accuracy, rare decisive word",
    PAIRS: "Pairs all right",
    PAIR_ORDER: "Pairs in order",
    "macro_f1": "Macro-F1",
    "ece": "Calibration error",
    **{metric.name: metric.title for metric in METRICS},
}
"""All other metrics by name; a cell has those that its evaluation sets allow."""
WORK = ("steps", "forward_tokens", "backward_tokens", "flops")
"""What the budget takes from `training`."""
DAMAGE = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError)
"""What reading breaks with where a file has not the shape that a run gives it."""


NO_ANSWERS = SetAnswers({}, {}, {}, {}, 0)


@dataclass(frozen=True)
class Measured:
    """One phase of one evaluation set: metric name -> value, and every answer. `by_review`: metrics of the focus -> the
    values of single reviews; none where they were not kept or can't be read. Before training there are metrics alone:
    nothing is compared there review by review, and large sets are large."""

    metrics: Mapping[str, float]
    answers: SetAnswers = NO_ANSWERS
    by_review: Mapping[str, SetValues] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Producer: read_outcome. `final`: after training, or the only measurement of a prompted cell. `before`: of trained
    cells. Both by evaluation set. `training`: what the trainer said of itself; None for prompted cells."""

    cell: Cell
    results: Mapping[str, Any]
    final: Mapping[str, Measured]
    before: Mapping[str, Measured]

    @property
    def training(self) -> Mapping[str, Any] | None:
        return self.results.get("training")

    @property
    def seconds(self) -> float:
        return float(sum(value or 0 for value in (self.results["run"].get("seconds") or {}).values()))


def read_outcome(cell: Cell) -> Outcome:
    """The outcome of a finished cell. Raises AfaError, with what to do, where a file of it is missing or damaged."""
    path = cell.folder / "results.json"
    try:
        return _outcome(cell, read_json(path), path)
    except AfaError as error:
        fault = str(error)
    except DAMAGE as error:
        fault = f"{path}: not as a run writes it ({type(error).__name__}: {error})"
    raise AfaError(f"{fault}; delete the folder {cell.folder} and run the benchmark again")


def _outcome(cell: Cell, results: Any, path: Path) -> Outcome:
    """Raises one of DAMAGE, or AfaError, where the files are not those of such a cell."""
    if not isinstance(results, dict) or results.get("schema") != 1:
        raise AfaError(f"{path}: not the results of a run (schema 1)")
    trained = any(entry.get("after") for entry in results["headline"])
    if trained != (cell.kind == "trained"):
        raise AfaError(f"{cell.folder}: is no {cell.kind} cell; choose another name=…, or else")
    _check_facts(results, trained)
    phases = ("before", "after") if trained else ("before",)
    measured = {phase: _phase(cell, results, phase, whole=phase == phases[-1]) for phase in phases}
    return Outcome(cell, results, measured[phases[-1]], measured["before"] if trained else {})


def _check_facts(results: Mapping[str, Any], trained: bool) -> None:
    """What the report takes from results.json as it stands. Raises one of DAMAGE."""
    run = results["run"]
    parts = {name: results[name] for name in ("labels", "train_template")}
    parts |= {f"run.{name}": run[name] for name in ("versions", "config_digest", "device")}
    parts |= {"run.seconds": run.get("seconds") or {}, "training": results["training"] if trained else {}}
    mappings = ("run.versions", "run.seconds", "training")
    for name, part in parts.items():
        if not isinstance(part, list if name == "labels" else dict if name in mappings else str):
            raise TypeError(f"{name} is {type(part).__name__}")
    for text in (*parts["labels"], *(version for version in parts["run.versions"].values() if version is not None)):
        if not isinstance(text, str):
            raise TypeError(f"a {type(text).__name__} among labels or run.versions")
    for number in (*parts["run.seconds"].values(), *(parts["training"].get(name) for name in WORK)):
        if number is not None and not math.isfinite(number):
            raise ValueError(f"{number} among run.seconds or training")


def _phase(cell: Cell, results: Mapping[str, Any], phase: str, *, whole: bool) -> dict[str, Measured]:
    found = {}
    for entry in results["headline"]:
        name = entry["data_set"]
        items = [read_items(answers_path(cell.folder, name, template, phase)) for template in entry["templates"]]
        answers = _answers(items, entry, results)
        if len(answers.right) != entry[phase]["count"]:  # a file that lost lines would sink every comparison
            raise AfaError(
                f"{answers_path(cell.folder, name, entry['templates'][0], phase)}: together with the other templates' "
                f"files it holds {len(answers.right)} reviews, results.json tells of {entry[phase]['count']}"
            )
        metrics = _metrics(results, name, phase) | _ranking(dict(zip(entry["templates"], items, strict=True)), results)
        by_review = _by_review(cell, name, phase, answers.cluster) if whole else {}
        found[name] = Measured(metrics, answers, by_review) if whole else Measured(metrics)
    return found


def _by_review(cell: Cell, name: str, phase: str, cluster: Mapping[str, str]) -> dict[str, SetValues]:
    """A file that can't be read sinks no comparison: that of the means is left, and the figures tell of it."""
    path = focus_path(cell.folder, name)
    try:
        items = read_focus_items(path) if path.exists() else []
    except AfaError:
        return {}
    found: dict[str, dict[str, float]] = {}
    for item in items:
        measured = item.before if phase == "before" else item.after
        for metric, value in (measured.metrics if measured else {}).items():
            found.setdefault(metric, {})[item.example_id] = value
    return {metric: SetValues(values, cluster) for metric, values in found.items()}


def _answers(
    of_templates: Sequence[Sequence[ItemRecord]], entry: Mapping[str, Any], results: Mapping[str, Any]
) -> SetAnswers:
    calibration, trained_with = results["headline_calibration"], results["train_template"]
    seen: dict[str, int] = {}
    right: dict[str, int] = {}
    sure: dict[str, float] = {}
    for item in (item for items in of_templates for item in items):
        seen[item.example_id] = seen.get(item.example_id, 0) + 1
        right[item.example_id] = right.get(item.example_id, 0) + item.right(calibration)
        sure[item.example_id] = sure.get(item.example_id, 0.0) + item.probability[calibration][item.label]
    everywhere = [i for i, count in seen.items() if count == len(of_templates)]
    first = {item.example_id: item for items in reversed(of_templates) for item in items}
    clusters = clusters_of([first[i] for i in everywhere])
    main = [items for name, items in zip(entry["templates"], of_templates, strict=True) if name == trained_with]
    return SetAnswers(
        right={i: right[i] / len(of_templates) for i in everywhere},
        main={item.example_id: item.right(calibration) for items in main for item in items},
        cluster=dict(zip(everywhere, clusters, strict=True)),
        text={i: fingerprint(first[i].label, first[i].text) for i in everywhere},
        templates=len(of_templates),
        sure_N=np.array([sure[i] for i in everywhere], dtype=np.float64) / len(of_templates),
    )


def _ranking(of_template: Mapping[str, Sequence[ItemRecord]], results: Mapping[str, Any]) -> dict[str, float]:
    """What no threshold touches, under the template trained with: AUROC, and whether pairs are in order. From the
    answers themselves: runs of before it was written have it too."""
    items = of_template.get(results["train_template"], ())
    if not items:
        return {}
    calibration = results["headline_calibration"]
    order_K = in_order(items, calibration)
    order_K = order_K[np.isfinite(order_K)]
    found = {AUROC: auroc(log_probabilities(items, calibration), np.array([item.label for item in items]))}
    found |= {PAIR_ORDER: float(order_K.mean())} if len(order_K) else {}
    return {metric: value for metric, value in found.items() if math.isfinite(value)}


def _metrics(results: Mapping[str, Any], name: str, phase: str) -> dict[str, float]:
    """Accuracy is the mean over templates; groups, pairs and focus are of the template trained with."""
    entry = next(e for e in results["headline"] if e["data_set"] == name)
    found = {ACCURACY: entry[phase]["value"]}
    for row in results["scores"]:
        chosen = (row["template"], row["calibration"]) == (results["train_template"], results["headline_calibration"])
        if row["data_set"] == name and chosen:
            # Behavioural tests are no groups: they have pass rates, and INV and DIR don't ask for the label.
            groups = [of["value"] for group, of in row[phase]["group_accuracy"].items() if not kind_of(group)]
            groups = [value for value in groups if value is not None]
            found |= {"macro_f1": row[phase]["macro_f1"], "ece": row[phase]["ece"]}
            found |= {WORST_GROUP: min(groups)} if groups else {}
    for pairs in results.get("pairs") or []:
        if (pairs["data_set"], pairs["template"]) == (name, results["train_template"]) and pairs[phase]:
            found[PAIRS] = pairs[phase]["consistency"]["value"]
    for test in results.get("behaviour") or []:
        if (test["data_set"], test["template"]) == (name, results["train_template"]) and test[phase]:
            found[f"{BEHAVIOUR}{test['kind']}_{test['test']}"] = test[phase]["pass_rate"]["value"]
    for part in results.get("slices") or []:
        if (part["data_set"], part["by"], part["slice"]) == (name, "decisive", "rare") and part[phase]:
            found[RARE_WORD] = part[phase]["value"]
    for focus in results["focus"]:
        if focus["data_set"] == name:
            found |= {metric["metric"]: (metric[phase] or {}).get("value") for metric in focus["metrics"]}
    numbers = {metric: float(value) for metric, value in found.items() if value is not None}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError(f"{name}: {next(m for m, value in numbers.items() if not math.isfinite(value))} is no number")
    return numbers
