"""The base's measurement, kept for runs that would measure the same again: the arms of a benchmark share it.

What is kept is named by everything that it depends on (the base's weights, every prompt's tokens, the settings of the
measurement, seed, code and libraries), so that a run with anything else measures anew.

Legend: N reviews, W words.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from afa_llm.config import Config
from afa_llm.errors import AfaError
from afa_llm.evaluation import json_files
from afa_llm.evaluation.estimates import Floats
from afa_llm.evaluation.faithfulness import Removal, RemovalScores
from afa_llm.evaluation.focus_quality import FocusScores
from afa_llm.evaluation.prompted_sentiment import record_of
from afa_llm.evaluation.results import library_versions
from afa_llm.evaluation.word_frequencies import WordFrequencies
from afa_llm.fingerprint import source_fingerprint
from afa_llm.material import Material
from afa_llm.models.adapters import model_location
from afa_llm.models.decoder import Decoder
from afa_llm.rollouts.engine_service import EngineService
from afa_llm.run_results import Clock, Phase, measure_phase
from afa_llm.training.distributed import World

READING_ONLY = {"before_folder", "bootstrap_samples", "confidence", "headline_calibration"}
"""Of `evaluation`: what is made of a measurement, not what is measured."""


def measure_before(
    config: Config,
    material: Material,
    decoder: Decoder,
    world: World,
    clock: Clock,
    service: EngineService | None = None,
) -> Phase:
    """`measure_phase` of the base, or what is kept of it in `evaluation.before_folder`. Every rank calls it.

    An engine's answers are never kept: base and tuned model go through the same engine.
    """
    folder = config.evaluation.before_folder
    if folder is None or config.evaluation.through_engine:
        return measure_phase(config, material, decoder, world, clock, "before", service)
    path = Path(folder) / f"{fingerprint(config, material, decoder)}.json"
    with clock.phase("before"):
        kept: Phase | None = world.from_leader(read_phase(path) if world.leads else None)
    if kept is not None:
        world.tell(f"before: as measured by another run of the same base, prompts and settings ({path})")
        return kept
    found = measure_phase(config, material, decoder, world, clock, "before", service)
    if world.leads:
        keep(path, vars(found), world)
    return found


def check_folder(config: Config, world: World) -> None:
    """Raises AfaError on every rank where `evaluation.before_folder` is not there and can't be made: told before the
    base is measured, not after. One that can only be read may hold what is looked for."""
    folder, trouble = config.evaluation.before_folder, None
    if folder is not None and world.leads:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            trouble = (
                f"evaluation.before_folder = {folder}: no folder, and none can be made there: {error.strerror}; name "
                "another one, or leave it out"
            )
    trouble = world.from_leader(trouble)
    if trouble:
        raise AfaError(trouble)


def keep(path: Path, content: Any, world: World) -> None:
    """Put it there for other runs, or tell why not: what was found is good for this run all the same."""
    try:
        json_files.write_json(path, content)
    except OSError as error:
        world.tell(f"evaluation.before_folder: {path} cannot be written, other runs will not find it: {error.strerror}")


def fingerprint(config: Config, material: Material, decoder: Decoder) -> str:
    """24 hex digits of everything that a measurement of the base depends on."""
    depends = base_identity(config, decoder) | {
        "layers": decoder.layers,
        "seed": config.run.seed,
        "evaluation": config.evaluation.model_dump(mode="json", exclude=READING_ONLY),
        "answers": material.answers,
        "prompts": material.prompt_sets,
        "focus": material.focus_prompts,
        "counts": WordFrequencies.from_examples(material.train_examples, config.evaluation.rare_quantile),
    }
    return digest(depends)


def digest(depends: dict[str, Any]) -> str:
    """24 hex digits that name what depends on these values."""
    text = json.dumps(depends, default=vars, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def base_identity(config: Config, decoder: Decoder) -> dict[str, Any]:
    """Of what any answer of the base depends on: code, libraries, weights and how they are held, kind of device."""
    return {
        "code": source_fingerprint(),
        "versions": library_versions(),
        "model": config.model.model_dump(mode="json"),
        "weights": _weights(config, decoder),
        "device": decoder.device.type,
    }


def _weights(config: Config, decoder: Decoder) -> Any:
    """A folder's files by name, size and time of change; the commit of a model from the hub."""
    folder = Path(model_location(config.model.path))
    if not folder.is_dir():
        return str(getattr(decoder.model.config, "_commit_hash", None))
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return [(str(folder.resolve()), file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def read_phase(path: Path) -> Phase | None:
    """What is kept under this name; None where there is nothing, or nothing that can be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        items = [record_of(item, str(path)) for item in values["items"]]
        focus = {title: (_rows(rows), _scores(scores)) for title, (rows, scores) in values["focus"].items()}
    except Exception:  # a file that somebody changed may be anything: it is measured anew and written over
        return None
    return Phase(items, focus)


def _scores(values: dict[str, Any]) -> FocusScores:
    removal = values["removal"]
    return FocusScores(
        values={name: _numbers(row) for name, row in values["values"].items()},
        chance={name: _numbers(row) for name, row in values["chance"].items()},
        removal=RemovalScores(
            probability_NC=_numbers(removal["probability_NC"]),
            prediction_N=np.array(removal["prediction_N"], dtype=np.int64),
            focus=_removal(removal["focus"]),
            random=_removal(removal["random"]),
            matched=_removal(removal["matched"]),
            others={name: _removal(other) for name, other in removal["others"].items()},
            all_hidden_N=_numbers(removal["all_hidden_N"]),
            leave_one_out_N=tuple(None if row is None else _numbers(row) for row in removal["leave_one_out_N"]),
        ),
    )


def _removal(values: dict[str, Any]) -> Removal:
    return Removal(**{name: _numbers(row) for name, row in values.items()})


def _rows(values: list[Any]) -> list[Floats]:
    return [_numbers(row) for row in values]


def _numbers(values: list[Any]) -> Floats:
    """NaN stands as null in JSON."""
    return np.array(
        [[_number(x) for x in row] if isinstance(row, list) else _number(row) for row in values], dtype=np.float64
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value
