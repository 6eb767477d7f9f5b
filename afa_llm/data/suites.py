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

import os
from pathlib import Path
from typing import Any

from afa_llm.config import Config
from afa_llm.config_data import Data, Prompts, Source
from afa_llm.data.datasets_rows import read_hub
from afa_llm.data.local_suites import SPLIT_NAMES, local_split
from afa_llm.data.suite_catalogue import PREFIX, Suite, catalogue, fields_of, find_suite, hub_command
from afa_llm.errors import AfaError

FOLDER_VARIABLE = "AFA_DATA"


def resolve_suites(config: Config) -> Config:
    """The configuration with every suite replaced by what it stands for; the same object where none is named.

    Raises AfaError: unknown suite or split, data that is not there (with how to get it), suites of one run with
    different labels.
    """
    data = config.data
    if not _named(data):
        return config
    folder = suites_folder(data)
    config = with_labels(config)
    update: dict[str, Any] = {
        "train": _resolve(data.train, folder),
        "evaluation": tuple(_resolve(source, folder) for source in data.evaluation),
        "validation": data.validation and _resolve(data.validation, folder),
    }
    values = config.model_copy(update={"data": config.data.model_copy(update=update)}).model_dump()
    return Config.model_validate(values)


def with_labels(config: Config) -> Config:
    """The configuration with the labels and prompts that its suites bring; their data need not be there."""
    data, prompts = config.data, config.prompts
    named = _named(data)
    if not named or data.labels != Data().labels:
        return config
    scheme = _common_labels(named)
    labels = {name: tuple(values) for name, values in scheme["labels"].items()}
    if prompts.file == Prompts().file:
        prompts = prompts.model_copy(update={"file": scheme["prompts"]})
    return config.model_copy(update={"data": data.model_copy(update={"labels": labels}), "prompts": prompts})


def _named(data: Data) -> list[Source]:
    sources = (data.train, *data.evaluation, data.validation)
    return [source for source in sources if source is not None and source.path.startswith(PREFIX)]


def lacking(given: Config, resolved: Config) -> list[str]:
    """A notice for each local file of a suite to measure on that lacks its pairs or rationales: they go unmeasured."""
    notices = []
    for source, found in zip(given.data.evaluation, resolved.data.evaluation, strict=True):
        suite = find_suite(source.path) if source.path.startswith(PREFIX) else None
        if suite is None or suite.builtin or (suite.hub and found.path == suite.hub.path):
            continue
        for setting, what in (("pair_column", "pairs"), ("rationale_column", "rationales")):
            joined = setting == "pair_column" and found.edits_path
            if setting in suite.columns and getattr(found, setting) is None and not joined:
                names = suite.columns[setting]
                shown = " or ".join(names) if isinstance(names, list) else names
                notices.append(
                    f"{found.title}: no {what} are measured, {found.path} has no column {shown}; if another one has "
                    f"them, name it: {setting}"
                )
    return notices


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
    return catalogue()["labels"][next(iter(found))]


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
        found |= local_split(suite, split, folder) or _on_hub(suite, split, folder)
    default = Source()
    untouched = {key for key in Source.model_fields if getattr(source, key) == getattr(default, key)}
    kept = {key: value for key, value in found.items() if key in untouched or key in ("path", "split")}
    return source.model_copy(update=kept)


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
