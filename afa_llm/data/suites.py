"""Data suites by name: `suite:sst2` becomes a local file or a hub data set with its columns, labels and prompts.

    data.train.path=suite:sst2 data.train.split=train data.suites_dir=DIR        (or AFA_DATA=DIR in the environment)

A local file lies at DIR/<folder>/<split>.jsonl (.csv, .tsv, .json, .parquet; text also .gz), fields `text` and `label`
and what the suite names besides. Where no such folder is there, the hub's copy is taken. Splits are train, dev (a file
may be called validation, valid or val too) and test, or any other file of the folder. `<split>_exclude_ids.txt` beside
a file names ids to leave out. What suites there are stands in assets/suites.yaml.

A suite brings label names and prompts of its own (two, three or five classes) wherever data.labels and prompts.file are
the defaults; settings of the source that are not the default win over the suite's. What comes out is an ordinary
configuration without suites, which a run saves: it says what was read.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from afa_llm.config import Config
from afa_llm.config_data import Data, Prompts, Source
from afa_llm.config_yaml import load_yaml
from afa_llm.data.datasets_rows import parquet_columns, read_hub
from afa_llm.data.raw_rows import TEXT_READERS, rows_of, suffix_of
from afa_llm.errors import AfaError

PREFIX = "suite:"
FOLDER_VARIABLE = "AFA_DATA"
ENDINGS = (*TEXT_READERS, *(f"{ending}.gz" for ending in TEXT_READERS), ".parquet")
SPLIT_NAMES = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}

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
    """One entry of assets/suites.yaml."""

    name: str
    what: str
    labels: str
    folders: tuple[str, ...] = ()
    columns: Columns = field(default_factory=dict)
    keep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    hub: Hub | None = None
    builtin: str | None = None
    has_splits: bool = True


def resolve_suites(config: Config) -> Config:
    """The configuration with every suite replaced by what it stands for; the same object where none is named.

    Raises AfaError: unknown suite or split, data that is not there (with how to get it), suites of one run with
    different labels.
    """
    data = config.data
    named = [s for s in (data.train, *data.evaluation, data.validation) if s is not None and s.path.startswith(PREFIX)]
    if not named:
        return config
    folder = suites_folder(data)
    update: dict[str, Any] = {
        "train": _resolve(data.train, folder),
        "evaluation": tuple(_resolve(source, folder) for source in data.evaluation),
        "validation": data.validation and _resolve(data.validation, folder),
    }
    prompts = config.prompts
    if data.labels == Data().labels:
        scheme = _common_labels(named)
        update["labels"] = {name: tuple(values) for name, values in scheme["labels"].items()}
        if prompts.file == Prompts().file:
            prompts = prompts.model_copy(update={"file": scheme["prompts"]})
    values = config.model_copy(update={"data": data.model_copy(update=update), "prompts": prompts}).model_dump()
    return Config.model_validate(values)


def lacking(given: Config, resolved: Config) -> list[str]:
    """A notice for each local file of a suite to measure on that lacks its pairs or rationales: they go unmeasured."""
    notices = []
    for source, found in zip(given.data.evaluation, resolved.data.evaluation, strict=True):
        suite = find_suite(source.path) if source.path.startswith(PREFIX) else None
        if suite is None or suite.builtin or (suite.hub and found.path == suite.hub.path):
            continue
        for setting, what in (("pair_column", "pairs"), ("rationale_column", "rationales")):
            if setting in suite.columns and getattr(found, setting) is None:
                names = suite.columns[setting]
                shown = " or ".join(names) if isinstance(names, list) else names
                notices.append(
                    f"{found.title}: no {what} are measured, {found.path} has no column {shown}; if another one has "
                    f"them, name it: {setting}"
                )
    return notices


@functools.cache
def suites() -> dict[str, Suite]:
    """All suites by name."""
    return {name: _suite(name, dict(values)) for name, values in _file()["suites"].items()}


def find_suite(path: str) -> Suite:
    """The suite of `suite:<name>`. Raises AfaError for an unknown name."""
    name = path.removeprefix(PREFIX)
    if name in suites():
        return suites()[name]
    near = difflib.get_close_matches(name, suites(), 1)
    hint = f"; did you mean suite:{near[0]}?" if near else ""
    raise AfaError(f"{path}: no such suite; there are {', '.join(suites())}{hint}")


@functools.cache
def _file() -> dict[str, Any]:
    return load_yaml((resources.files("afa_llm") / "assets" / "suites.yaml").read_text(encoding="utf-8"))


def _suite(name: str, values: dict[str, Any]) -> Suite:
    hub = values.pop("hub", None)
    keep = {column: tuple(kept) for column, kept in values.pop("keep", {}).items()}
    folders = tuple(values.pop("folders", ()))
    return Suite(name, folders=folders, keep=keep, hub=Hub(**hub) if hub else None, **values)


def suites_folder(data: Data) -> Path | None:
    """Where local suites lie, if anywhere. Raises AfaError where the folder that is named is not there."""
    given = data.suites_dir or os.environ.get(FOLDER_VARIABLE) or None
    if given is None:
        return None
    folder = Path(os.path.abspath(os.path.expanduser(given)))
    if not os.path.isdir(folder):
        setting = "data.suites_dir" if data.suites_dir else f"the environment variable {FOLDER_VARIABLE}"
        raise AfaError(f"{setting} = {given}: no such folder; name the one that holds a folder for each suite")
    return folder


def _common_labels(named: list[Source]) -> dict[str, Any]:
    found = {find_suite(source.path).labels: source.path for source in reversed(named)}
    if len(found) > 1:
        shown = ", ".join(f"{path} ({kind})" for kind, path in sorted(found.items()))
        raise AfaError(
            f"data: suites with different labels in one run: {shown}; measure them in runs of their own, or set "
            "data.labels (and where, to leave classes out)"
        )
    return _file()["labels"][next(iter(found))]


def _resolve(source: Source, folder: Path | None) -> Source:
    """A source without suites; one that names none stays as it is."""
    if not source.path.startswith(PREFIX):
        return source
    suite = find_suite(source.path)
    split = next((name for name, others in SPLIT_NAMES.items() if source.split in others), source.split)
    found: dict[str, Any] = {"name": source.title if suite.has_splits else suite.name}
    if suite.builtin:
        found |= {"path": suite.builtin, "split": "validation" if split == "dev" else split}
    else:
        found |= _local(suite, split, folder) or _on_hub(suite, split, folder)
    default = Source()
    untouched = {key for key in Source.model_fields if getattr(source, key) == getattr(default, key)}
    kept = {key: value for key, value in found.items() if key in untouched or key in ("path", "split")}
    return source.model_copy(update=kept)


def _local(suite: Suite, split: str, folder: Path | None) -> dict[str, Any] | None:
    """Settings of the suite's file, None where no folder of it is there.

    Raises AfaError where the split is missing, or its file can't be read.
    """
    places = [folder / name for name in suite.folders if (folder / name).is_dir()] if folder else []
    if not places:
        return None
    names = SPLIT_NAMES.get(split, (split,))
    files = [place / f"{name}{end}" for place in places for name in names for end in ENDINGS]
    there = [file for file in files if file.is_file()]
    if len(there) > 1:
        raise AfaError(f"suite:{suite.name}, split {split}: both {there[0]} and {there[1]} are there; take one away")
    odd = [file for file in files if os.path.lexists(file)]  # folders, links that lead nowhere or in circles
    if not there and odd:
        raise AfaError(f"suite:{suite.name}: {odd[0]} is no file that can be read; put the split's file there")
    if not there:
        known = sorted(
            {f.name.split(".")[0] for p in places for f in p.iterdir() if f.name.endswith(ENDINGS) and f.is_file()}
        )
        raise AfaError(
            f"suite:{suite.name}: no split {split!r} in {places[0]}; there are {', '.join(known) or 'none'}; "
            f"put it there as {split}.jsonl ({fields_of(suite)}), or set another split "
            f"(with part: [0, 0.9] to train on and [0.9, 1] to measure on)"
        )
    present = _columns_of(there[0])
    found = {"path": str(there[0]), "split": split, **_chosen(suite.columns, present)}
    text = (suite.hub.columns.get("text_column") if suite.hub else None) or "text"
    if "text" not in present and text in present:
        found["text_column"] = text
    # Labels may stand in another column, by label_column. Else a column that is missing is told by the filter itself.
    keep = {column: values for column, values in suite.keep.items() if column in present or column != "label"}
    if keep:
        found["where"] = keep
    excluded = there[0].parent / f"{there[0].name.split('.')[0]}_exclude_ids.txt"
    if excluded.exists():  # never passed over: without an id column the loader says that one is missing
        found["exclude_ids"] = str(excluded)
        if "id" in present:
            found.setdefault("id_column", "id")
    return found


def _chosen(columns: Columns, present: set[str]) -> dict[str, Any]:
    """The columns that the file has: of alternatives the first; a rationale only beside its words."""
    found: dict[str, Any] = {}
    for setting, value in columns.items():
        names = value if isinstance(value, list) else [value]
        name = next((name for name in names if name in present), None)
        if name is not None:
            found[setting] = name
    if "words_column" not in found:
        found.pop("rationale_column", None)
    if "rationale_column" in found and "rationale_neutral" in columns:
        found["rationale_neutral"] = columns["rationale_neutral"]
    return found


def _columns_of(file: Path) -> set[str]:
    """Of every row: pairs or rationales that begin far down in a file would be missed without a word."""
    if suffix_of(file) == ".parquet":
        return set(parquet_columns(file))
    return {column for row in rows_of(file) for column in row.values}


def _on_hub(suite: Suite, split: str, folder: Path | None) -> dict[str, Any]:
    """Settings of the hub's copy, which is fetched here, so that a missing one is told with how to get it."""
    hub = suite.hub
    if hub is None or split not in hub.splits:
        raise AfaError(_how_to_get(suite, split, folder, ""))
    try:
        read_hub(hub.path, hub.subset, hub.splits[split], None)
    except AfaError as error:
        raise AfaError(_how_to_get(suite, split, folder, str(error))) from None
    return {"path": hub.path, "subset": hub.subset, "split": hub.splits[split], **hub.columns}


def _how_to_get(suite: Suite, split: str, folder: Path | None, trouble: str) -> str:
    name = suite.folders[0]
    where = folder / name if folder else Path("DIR") / name
    setting = "" if folder else f" and set data.suites_dir=DIR (or {FOLDER_VARIABLE}=DIR in the environment)"
    lines = [
        f"suite:{suite.name}, split {split}: not there ({suite.what})",
        f"  local: put it at {where / split}.jsonl, {fields_of(suite)}; .csv and .parquet do too{setting}",
    ]
    if suite.hub and split in suite.hub.splits:
        lines.append(f"  hub: once, with network: {hub_command(suite, split)}")
    elif suite.hub:
        lines.append(f"  the hub's {suite.hub.path} has the splits {', '.join(suite.hub.splits)} only")
    else:
        lines.append("  the hub has no copy that we know of")
    return "\n".join(lines + ([f"  {trouble}"] if trouble else []))


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
    return f"fields {', '.join(needed)}" + (f", and if given {', '.join(named.values())}" if named else "")
