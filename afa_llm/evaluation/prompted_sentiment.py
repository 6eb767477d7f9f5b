"""One data set under one template: prompts in, one record per review out, scores on top.

Legend: N prompts, M content-free prompts, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from afa_llm.errors import AfaError
from afa_llm.evaluation import json_files
from afa_llm.evaluation.calibration import calibrate
from afa_llm.evaluation.estimates import Floats
from afa_llm.evaluation.scores import Scores, predictions, score
from afa_llm.records import Answers, AnswerWords, Prompt

TEXTS = ("example_id", "data_set", "template", "phase", "group", "text", "pair", "side")
"""Fields of an item record that are text."""
LOG_PROB_FLOOR = -100.0
"""An answer of probability zero is scored as e^-100, so that it can be calibrated."""


class Answering(Protocol):
    """What is asked of a generator (rollouts.generator): a row of label log-probabilities for each prompt, in order."""

    def answer(self, prompts: Sequence[Prompt], answers: AnswerWords) -> Answers: ...


@dataclass(frozen=True)
class PromptSet:
    """What is asked for one data set under one template. `content_free` and `in_domain`: see calibration."""

    data_set: str
    template: str
    prompts: tuple[Prompt, ...]
    answers: AnswerWords
    content_free: tuple[Prompt, ...] = ()
    in_domain: tuple[Prompt, ...] = ()


@dataclass(frozen=True)
class ItemRecord:
    """One review's answer. Producer: this module. Consumers: comparison, results, report.

    `log_prob`: of each label's answer, as the model gave it. `probability`, `prediction`: per calibration, normalised
    over the labels. `phase`: before or after training. `group`, `pair`, `side`: as of the review.
    """

    example_id: str
    data_set: str
    template: str
    phase: str
    label: int
    log_prob: tuple[float, ...]
    probability: dict[str, tuple[float, ...]]
    prediction: dict[str, int]
    adapter_version: int
    group: str
    text: str
    pair: str = ""
    side: str = ""

    def right(self, calibration: str) -> bool:
        return self.prediction[calibration] == self.label


def measure(
    prompt_set: PromptSet, generator: Answering, phase: str, calibrations: Sequence[str], batch_size: int
) -> list[ItemRecord]:
    """Asks the generator everything the calibrations need and gives a record per prompt, in the prompts' order.

    Raises AfaError where an answer is NaN or where the adapter changed under way.
    """
    groups = {"reviews": prompt_set.prompts}
    if "contextual" in calibrations:
        groups["contextual"] = prompt_set.content_free
    if "domain" in calibrations:
        groups["domain"] = prompt_set.in_domain
    every = [prompt for prompts in groups.values() for prompt in prompts]
    log_prob_NC, version = answer_prompts(every, prompt_set.answers, generator, batch_size)
    ends = np.cumsum([len(prompts) for prompts in groups.values()])
    parts = dict(zip(groups, np.split(log_prob_NC, ends[:-1]), strict=True))
    return item_records(prompt_set, phase, parts.pop("reviews"), parts, version, calibrations)


def answer_prompts(
    prompts: Sequence[Prompt], answers: AnswerWords, generator: Answering, batch_size: int
) -> tuple[Floats, int]:
    """Label log-probabilities [N, C] in the prompts' order, and the adapter version that gave them (-1: no prompts).

    Batches are sorted by length, longest first: little padding, and too large a batch fails at once. Raises AfaError.
    """
    log_prob_NC = np.full((len(prompts), len(answers.labels)), np.nan)
    order_N = np.argsort([-len(prompt.token_ids) for prompt in prompts], kind="stable")
    versions = set()
    for start in range(0, len(prompts), batch_size):
        rows = order_N[start : start + batch_size]
        given = generator.answer([prompts[row] for row in rows], answers)
        log_prob_NC[rows] = _as_array(given, len(rows), len(answers.labels))
        versions.add(int(given.adapter_version))
    if len(versions) > 1:
        raise AfaError(f"the adapter changed while prompts were answered (versions {sorted(versions)}); measure again")
    _refuse_nan(log_prob_NC, prompts)
    return np.maximum(log_prob_NC, LOG_PROB_FLOOR), versions.pop() if versions else -1


def item_records(
    prompt_set: PromptSet,
    phase: str,
    log_prob_NC: Floats,
    priors: Mapping[str, Floats],
    adapter_version: int,
    calibrations: Sequence[str],
) -> list[ItemRecord]:
    """Records from answers. `priors`: calibration -> answers to its content-free prompts [M, C]."""
    calibrated = {name: calibrate(name, log_prob_NC, priors.get(name)) for name in calibrations}
    probability = {name: np.exp(values_NC) for name, values_NC in calibrated.items()}
    prediction = {name: predictions(values_NC) for name, values_NC in calibrated.items()}
    return [
        ItemRecord(
            example_id=prompt.example.example_id,
            data_set=prompt_set.data_set,
            template=prompt_set.template,
            phase=phase,
            label=prompt.example.label,
            log_prob=tuple(log_prob_NC[row].tolist()),
            probability={name: tuple(probability[name][row].tolist()) for name in calibrations},
            prediction={name: int(prediction[name][row]) for name in calibrations},
            adapter_version=adapter_version,
            group=prompt.example.group,
            text=prompt.example.text,
            pair=prompt.example.pair,
            side=prompt.example.side,
        )
        for row, prompt in enumerate(prompt_set.prompts)
    ]


def score_items(items: Sequence[ItemRecord], calibration: str, classes: int, confidence: float = 0.95) -> Scores:
    """Scores of the records under one calibration."""
    log_prob_NC = log_probabilities(items, calibration).reshape(len(items), classes)
    label_N = np.array([item.label for item in items], dtype=np.int64)
    return score(log_prob_NC, label_N, [item.group for item in items], confidence)


def log_probabilities(items: Sequence[ItemRecord], calibration: str) -> Floats:
    """Log-probabilities of the labels [N, C] under one calibration, none below the floor."""
    probability_NC = np.array([item.probability[calibration] for item in items], dtype=np.float64)
    return np.log(np.maximum(probability_NC, np.exp(LOG_PROB_FLOOR)))


def write_items(path: Path, records: Sequence[ItemRecord]) -> None:
    """One record a line; the file appears whole or not at all."""
    json_files.write_lines(path, records)


def read_items(path: Path) -> list[ItemRecord]:
    """The records of `write_items`. Raises AfaError that names the line where one is not a record."""
    return [
        record_of(values, f"{path}: record {number}") for number, values in enumerate(json_files.read_lines(path), 1)
    ]


def record_of(values: dict[str, Any], where: str) -> ItemRecord:
    """The record of its fields as JSON has them. Raises AfaError that begins with `where`."""
    wanted = {field.name for field in fields(ItemRecord)}
    values = {"pair": "", "side": ""} | values  # absent in files of earlier versions
    if set(values) != wanted:
        raise AfaError(f"{where}: not an item record; differing fields: {', '.join(sorted(wanted ^ set(values)))}")
    texts = [name for name in TEXTS if not isinstance(values[name], str)]
    try:
        probability = {name: tuple(row) for name, row in values["probability"].items()}
        numbers = [values["label"], *values["prediction"].values()]
        record = ItemRecord(**{**values, "log_prob": tuple(values["log_prob"]), "probability": probability})
    except (TypeError, AttributeError) as error:
        raise AfaError(f"{where}: not an item record: {error}") from None
    if texts or not all(isinstance(number, int) for number in numbers):
        raise AfaError(f"{where}: not an item record: {texts[0] if texts else 'label or prediction'} of another kind")
    return record


def _as_array(given: Answers, rows: int, classes: int) -> Floats:
    log_prob_NC = given.label_logprob_NC.detach().double().cpu().numpy()
    if log_prob_NC.shape != (rows, classes):
        raise ValueError(f"a generator gave {log_prob_NC.shape} for {rows} prompts and {classes} labels")
    return log_prob_NC


def _refuse_nan(log_prob_NC: Floats, prompts: Sequence[Prompt]) -> None:
    bad_N = np.isnan(log_prob_NC).any(axis=1) | (log_prob_NC == np.inf).any(axis=1)
    if bad_N.any():
        first = prompts[int(np.flatnonzero(bad_N)[0])].example.example_id
        raise AfaError(
            f"{int(bad_N.sum())} of {len(prompts)} answers are not numbers, the first for example {first!r}; "
            "the weights may hold NaN: check the adapter, or set model.dtype: float32"
        )
