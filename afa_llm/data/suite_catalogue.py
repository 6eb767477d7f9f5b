"""What suites there are (assets/suites.yaml): where each lies, here and on the hub, and what its fields are called."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from afa_llm.config_yaml import load_yaml
from afa_llm.errors import AfaError

PREFIX = "suite:"

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Hub:
    """Where the hub has a suite: `splits` maps train, dev and test to the names there."""

    path: str
    splits: Mapping[str, str]
    subset: str | None = None
    columns: Columns = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """One entry of assets/suites.yaml. `two_files`: what the names of originals and of their edits end in, where a
    split may be two files."""

    name: str
    what: str
    labels: str
    folders: tuple[str, ...] = ()
    columns: Columns = field(default_factory=dict)
    keep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    hub: Hub | None = None
    builtin: str | None = None
    has_splits: bool = True
    two_files: tuple[str, ...] = ()


@functools.cache
def suites() -> dict[str, Suite]:
    """All suites by name."""
    return {name: _suite(name, dict(values)) for name, values in catalogue()["suites"].items()}


def find_suite(path: str) -> Suite:
    """The suite of `suite:<name>`. Raises AfaError for an unknown name."""
    name = path.removeprefix(PREFIX)
    if name in suites():
        return suites()[name]
    near = difflib.get_close_matches(name, suites(), 1)
    hint = f"; did you mean suite:{near[0]}?" if near else ""
    raise AfaError(f"{path}: no such suite; there are {', '.join(suites())}{hint}")


@functools.cache
def catalogue() -> dict[str, Any]:
    return load_yaml((resources.files("afa_llm") / "assets" / "suites.yaml").read_text(encoding="utf-8"))


def _suite(name: str, values: dict[str, Any]) -> Suite:
    hub = values.pop("hub", None)
    keep = {column: tuple(kept) for column, kept in values.pop("keep", {}).items()}
    folders, two_files = (tuple(values.pop(key, ())) for key in ("folders", "two_files"))
    hub = Hub(**hub) if hub else None
    return Suite(name, folders=folders, two_files=two_files, keep=keep, hub=hub, **values)


def hub_command(suite: Suite, split: str) -> str:
    """What downloads a suite's split into the cache of the `datasets` library."""
    assert suite.hub
    subset = f"{suite.hub.subset!r}, " if suite.hub.subset else ""
    call = f"load_dataset({suite.hub.path!r}, {subset}split={suite.hub.splits[split]!r})"
    return f'python -c "from datasets import load_dataset; {call}"'


def fields_of(suite: Suite) -> str:
    """The fields of a local file in words."""
    named = {
        setting: " or ".join(names) if isinstance(names, list) else names
        for setting, names in suite.columns.items()
        if setting.endswith("_column")
    }
    needed = [named.pop("text_column", "text"), named.pop("label_column", "label")]
    told = f"fields {', '.join(needed)}" + (f", and if given {', '.join(named.values())}" if named else "")
    names = " and ".join(f"<split>{end}" for end in suite.two_files)
    return f"{told}; or two files, {names}, whose rows are pairs" if names else told
