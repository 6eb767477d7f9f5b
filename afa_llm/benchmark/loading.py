"""A benchmark file to checked settings and checked cells; every message names the file, the cell and the setting."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from afa_llm.benchmark.cells import Cell
from afa_llm.benchmark.goals import misnamed
from afa_llm.benchmark.passes import operations_per_review
from afa_llm.benchmark.settings import Arm, Benchmark, DataSet
from afa_llm.config import Config
from afa_llm.config_fields import ROOT as CONFIG
from afa_llm.config_fields import Place
from afa_llm.config_loading import check_values, read_yaml, without_empty_sections
from afa_llm.config_messages import SHOWN, explain, misread
from afa_llm.config_overrides import lay_over
from afa_llm.data.suite_catalogue import PREFIX
from afa_llm.errors import AfaError

ROOT = Place(Benchmark)
RESERVED = ("name", "output_dir", "seed", "overwrite", "resume")
"""Of `run`: the matrix sets them."""
RUN_SECTIONS = set(Config.model_fields)
BEFORE_FOLDER = "_before"
"""Beside the data sets' folders; no data set can be called so."""


def load_benchmark(path: str, overrides: Iterable[str] = ()) -> Benchmark:
    """The benchmark of a YAML file with overrides laid over it. Raises AfaError, all faults at once."""
    values = read_yaml(path, "name a benchmark's YAML file, such as configs/benchmark_pocket.yaml of the repository")
    if values.keys() & RUN_SECTIONS and not values.keys() & {"arms", "data_sets"}:
        raise AfaError(
            f"{path}: the settings of one run, not a benchmark; start it with `afa train {path}`, or name it in a "
            "benchmark's base.config"
        )
    for override in overrides:
        lay_over(values, override, ROOT)
    found = misread(values, ROOT)
    if not found:
        try:
            return Benchmark.model_validate(values)
        except ValidationError as error:
            found = explain(error, values, ROOT)
    raise AfaError("\n".join(f"{path}: {line}" for message in found.values() for line in message.splitlines()))


def plan_cells(benchmark: Benchmark, path: str) -> list[Cell]:
    """Every cell, data sets outermost and seeds innermost, its configuration checked. Raises AfaError."""
    start = read_yaml(benchmark.base.config) if benchmark.base.config else {}
    if wrong := [line for where, layer in _layers(start, benchmark, path).items() for line in _odd(layer, where)]:
        raise AfaError("\n".join(wrong))
    configs: dict[tuple[str, str], Config] = {}
    faults: dict[str, list[str]] = {}
    for data_set, data in benchmark.data_sets.items():
        for arm, how in benchmark.arms.items():
            checked = check_values(_values(start, benchmark, data, how, path))
            if isinstance(checked, Config) and not checked.data.evaluation:
                line = "data.evaluation = []: there is nothing to compare on; name a data set"
                faults.setdefault(line, []).append(f"{data_set}/{arm}")
            elif isinstance(checked, Config):
                configs[data_set, arm] = checked
            else:
                for line in (line for message in checked.values() for line in message.splitlines()):
                    faults.setdefault(line, []).append(f"{data_set}/{arm}")
    if faults:
        raise AfaError("\n".join(f"{path}: {_those(cells)}: {line}" for line, cells in faults.items()))
    if wrong := misnamed(benchmark, _evaluation_sets(configs)):
        raise AfaError("\n".join(f"{path}: {line}" for line in wrong))
    cells = []
    for (data_set, arm), config in configs.items():
        how = benchmark.arms[arm]
        if how.match_flops:
            try:
                config = match_operations(config, configs[data_set, how.match_flops])
            except AfaError as error:
                raise AfaError(f"{path}: {data_set}, arms.{arm}.{error}") from None
        cells += [_cell(benchmark, data_set, arm, how, seed, config) for seed in benchmark.seeds]
    return cells


def _evaluation_sets(configs: Mapping[tuple[str, str], Config]) -> dict[str, list[str]]:
    """The names of the evaluation sets of each data set; an arm may have its own, a suite without splits has one."""
    found: dict[str, dict[str, None]] = {}
    for (data_set, _), config in configs.items():
        for source in config.data.evaluation:
            names = found.setdefault(data_set, {})
            names[source.title] = None
            if not source.name and source.path.startswith(PREFIX):
                names[source.path.removeprefix(PREFIX)] = None
    return {data_set: list(names) for data_set, names in found.items()}


def match_operations(config: Config, other: Config) -> Config:
    """`config` with as many epochs as make its training operations those of `other` (rounded to whole steps).

    Counted with the weights of the frozen base alone: an adapter adds a few percent more to backward than to forward.
    """
    ratio = operations_per_review(other) / operations_per_review(config)
    most = other.training.max_steps
    budget = {"epochs": other.training.epochs * ratio, "max_steps": most and math.ceil(most * ratio)}
    return config.model_copy(update={"training": config.training.model_copy(update=budget)})


def _cell(benchmark: Benchmark, data_set: str, arm: str, how: Arm, seed: int, config: Config) -> Cell:
    place = Path(benchmark.output_dir) / benchmark.name / data_set / arm
    run = config.run.model_copy(update={"name": f"seed{seed}", "output_dir": str(place), "seed": seed})
    evaluation = config.evaluation
    if benchmark.share_before and evaluation.before_folder is None:
        shared = str(Path(benchmark.output_dir) / benchmark.name / BEFORE_FOLDER)
        evaluation = evaluation.model_copy(update={"before_folder": shared})
    return Cell(data_set, arm, seed, how.kind, config.model_copy(update={"run": run, "evaluation": evaluation}))


def _values(start: Mapping[str, Any], benchmark: Benchmark, data: DataSet, arm: Arm, path: str) -> dict[str, Any]:
    """Base, data set and arm, one over the other."""
    values = copy.deepcopy(without_empty_sections(start))
    for name in RESERVED:
        values.get("run", {}).pop(name, None)
    for settings in map(without_empty_sections, (benchmark.base.settings, data.settings, arm.settings)):
        for name in RESERVED:
            if name in settings.get("run", {}):
                raise AfaError(f"{path}: run.{name}: the benchmark sets it for every cell; leave it out of `settings`")
        values = merged(values, settings)
    return values


def _layers(start: Mapping[str, Any], benchmark: Benchmark, path: str) -> dict[str, Mapping[str, Any]]:
    """All that is laid over each other, by how a message names it."""
    found: dict[str, Mapping[str, Any]] = {f"{benchmark.base.config}: ": start}
    found[f"{path}: base.settings."] = benchmark.base.settings
    found |= {f"{path}: data_sets.{name}.settings.": data.settings for name, data in benchmark.data_sets.items()}
    return found | {f"{path}: arms.{name}.settings.": arm.settings for name, arm in benchmark.arms.items()}


def _odd(values: Mapping[str, Any], where: str, place: Place = CONFIG) -> list[str]:
    """What stands where a section belongs; laid under a section of another layer it would be lost without a word."""
    found = []
    for key, value in values.items():
        inner = place.inner(str(key))
        if inner and (inner.section or inner.optional_section):
            if isinstance(value, Mapping):
                found += _odd(value, f"{where}{key}.", inner)
            elif value is not None:
                found.append(f"{where}{key} = {str(value)[:SHOWN]}: should be {inner.wanted}")
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: sections are merged, everything else (lists and label mappings too) is replaced."""
    found = copy.deepcopy(dict(below))
    for key, value in above.items():
        both = isinstance(found.get(key), Mapping) and isinstance(value, Mapping) and key != "labels"
        found[key] = merged(found[key], value) if both else copy.deepcopy(value)
    return found


def _those(cells: list[str]) -> str:
    return f"cell {cells[0]}" if len(cells) == 1 else f"cell {cells[0]} and {len(cells) - 1} more"
