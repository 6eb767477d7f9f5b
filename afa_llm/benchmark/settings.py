"""What a benchmark file may say: arms, data sets, seeds, and what is compared with what. Frozen, typed, documented."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from afa_llm.config_section import Section, at_home
from afa_llm.config_texts import unreplaced_variables

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
OWN_FILES = ("benchmark.json", "report.html")
TABLES_FOLDER = "tables"
"""These lie beside the data sets' folders; no data set can be called so."""
BEFORE = "before"
"""Stands for an arm's own measurement before its training."""


class Base(Section):
    config: str | None = Field(None, description="run configuration that all cells start from: YAML or builtin:demo")
    settings: dict[str, Any] = Field(default={}, description="settings laid over it, as in a run's configuration")

    _home = field_validator("config")(at_home)


class Arm(Section):
    kind: Literal["trained", "prompted"] = Field(
        "trained", description="trained: measured, trained, measured again; prompted: the base, measured once"
    )
    title: str = Field("", description="name in reports; empty: the arm's key")
    settings: dict[str, Any] = Field(default={}, description="settings laid over those of base and data set")
    match_flops: str | None = Field(
        None, description="an arm: training.epochs is set so that training takes as many operations as that arm's"
    )


class DataSet(Section):
    title: str = Field("", description="name in the report's budget and learning curves; empty: its key")
    settings: dict[str, Any] = Field(default={}, description="settings laid over those of base: data.*, prompts.*")


class Goal(Section):
    """A claim that the benchmark is to check: arm less against, averaged over seeds and evaluation sets."""

    arm: str = Field(description="arm that should be better")
    against: str = Field(BEFORE, description="arm that it is compared with; before: itself before training")
    metric: str = Field(
        "accuracy", description="accuracy, worst_group, a focus metric such as auprc, …: as in benchmark.json"
    )
    at_least: float | None = Field(
        None, description="smallest difference that reaches the goal; accuracy is a share: 0.01 = 1 point"
    )
    at_most: float | None = Field(
        None,
        description="instead of at_least where less is better (sufficiency, ece): largest difference that reaches the "
        "goal; -0.05 = a fall of 0.05",
    )
    relative: bool = Field(False, description="the difference as a share of what it is compared with")
    sets: tuple[str, ...] = Field((), description="evaluation sets, or data sets, that count; empty: all")


class Benchmark(Section):
    name: str = Field("benchmark", pattern=NAME, description="folder of the matrix under output_dir")
    output_dir: str = Field("runs", description="folder that holds benchmarks and runs")
    base: Base = Field(default_factory=Base, description="what all cells have in common")
    arms: dict[str, Arm] = Field(default={}, description="name -> how the cells of an arm differ from base")
    data_sets: dict[str, DataSet] = Field(default={}, description="name -> the reviews of its cells")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="run.seed of the cells; the same for every arm")
    share_before: bool = Field(
        True, description="cells that would measure the same base under the same prompts take it from one another"
    )
    reference: str = Field("", description="arm that the others are compared with")
    goals: dict[str, Goal] = Field(default={}, description="name -> a claim to check")
    show: str = Field("", description="arm whose reviews the gallery shows beside the reference; empty: the last one")

    _home = field_validator("output_dir")(at_home)

    @model_validator(mode="after")
    def _consistent(self) -> Benchmark:
        found = [*_missing(self), *_named(self), *_seeds(self), *_goals(self), *unreplaced_variables(self)]
        if found:
            raise ValueError("\n".join(found))
        return self


def _missing(benchmark: Benchmark) -> list[str]:
    found = []
    if not benchmark.arms:
        found.append("arms: there are none; name at least two, such as cross_entropy and afa")
    if not benchmark.data_sets:
        found.append("data_sets: there are none; name one, such as planted: {settings: {data: {…}}}")
    return found


def _named(benchmark: Benchmark) -> list[str]:
    """Names that can be folders, and references to arms that exist."""
    import re

    found = []
    for section in ("arms", "data_sets"):
        for name in getattr(benchmark, section):
            if not re.fullmatch(NAME, name):  # to match alone lets a line feed at the end pass
                found.append(f"{section}.{name}: a name has letters, digits, . _ - and begins with a letter or digit")
        found += _same_titles(section, {name: each.title or name for name, each in getattr(benchmark, section).items()})
    known = ", ".join(benchmark.arms) or "none"
    own = (*OWN_FILES, TABLES_FOLDER)
    found += [
        f"data_sets.{n}: a file of the benchmark is called so; rename it" for n in benchmark.data_sets if n in own
    ]
    if BEFORE in benchmark.arms:
        found.append(f"arms.{BEFORE}: goals.*.against = {BEFORE} means an arm before its training; rename it")
    wanted = {"reference": benchmark.reference, "show": benchmark.show}
    wanted |= {f"arms.{name}.match_flops": arm.match_flops or "" for name, arm in benchmark.arms.items()}
    for name, goal in benchmark.goals.items():
        wanted |= {f"goals.{name}.arm": goal.arm}
        wanted |= {f"goals.{name}.against": goal.against if goal.against != BEFORE else ""}
    for setting, arm in wanted.items():
        if arm and arm not in benchmark.arms:
            found.append(f"{setting} = {arm}: no such arm; there are {known}")
    if not benchmark.reference and benchmark.arms:
        found.append(f"reference: say which arm the others are compared with, one of {known}")
    for name, how in benchmark.arms.items():
        other = benchmark.arms.get(how.match_flops or "")
        if other and (how.kind == "prompted" or other.kind == "prompted"):
            found.append(f"arms.{name}.match_flops = {how.match_flops}: only trained arms take training operations")
        if other and other.match_flops:
            found.append(
                f"arms.{name}.match_flops = {how.match_flops}: that arm is matched itself; name an arm that is not"
            )
    return found


def _same_titles(section: str, titles: dict[str, str]) -> list[str]:
    """Two of one name in a report could not be told apart, and a chart would draw one of them alone."""
    first: dict[str, str] = {}
    found = []
    for name, title in titles.items():
        if title in first:
            found.append(f"{section}.{name}: is called {title!r}, as {first[title]} is; give each a title of its own")
        first.setdefault(title, name)
    return found


def _goals(benchmark: Benchmark) -> list[str]:
    """Goals that want nothing or two things, and those that compare what is not there or cannot differ."""
    found = []
    for name, goal in benchmark.goals.items():
        given = [limit for limit in (goal.at_least, goal.at_most) if limit is not None]
        if len(given) != 1:
            told = f"at_least = {goal.at_least:g} and at_most = {goal.at_most:g}" if given else "there is neither"
            found.append(f"goals.{name}: give at_least (more is better) or at_most (less is better); {told}")
        if goal.arm == goal.against:
            found.append(f"goals.{name}.against = {goal.against}: an arm does not differ from itself; name another one")
        prompted = goal.arm in benchmark.arms and benchmark.arms[goal.arm].kind == "prompted"
        if prompted and goal.against == BEFORE:
            found.append(
                f"goals.{name}.against = {BEFORE}: {goal.arm} is prompted and measured once; name the arm that it is "
                "compared with"
            )
    return found


def _seeds(benchmark: Benchmark) -> list[str]:
    if len(set(benchmark.seeds)) == len(benchmark.seeds) and all(0 <= seed < 2**63 for seed in benchmark.seeds):
        return []
    return [f"seeds = {list(benchmark.seeds)}: whole numbers from 0 up (below 2**63), each once"]
