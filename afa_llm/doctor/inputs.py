"""Files that a run reads on every node: which settings name them, and whether nodes hold the same ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

from afa_llm.config import Config
from afa_llm.config_data import FILE_TYPES, Source
from afa_llm.doctor.findings import Input

WHOLE_FILE_BYTES = 64 * 2**20
"""Larger files are compared by size alone: reading a model from every node would take minutes."""

EXPANDED = ("data.", "evaluation.lexicon")
"""Settings in whose paths a run reads ~ as the home folder."""


def input_paths(config: Config, config_file: str | None) -> dict[str, str]:
    """Setting -> path or hub name of everything that every rank opens, but what the package itself brings."""
    named = {
        "CONFIG": config_file,
        "model.path": config.model.path,
        "prompts.file": config.prompts.file,
        "evaluation.lexicon": config.evaluation.lexicon,
        "training.deepspeed_file": config.training.deepspeed_file,
    }
    for name, source in _sources(config).items():
        named |= {f"{name}.{part}": getattr(source, part) for part in ("path", "edits_path", "exclude_ids")}
    named["data.suites_dir"] = config.data.suites_dir
    return {setting: path for setting, path in named.items() if path and not path.startswith(("builtin:", "suite:"))}


def _sources(config: Config) -> dict[str, Source]:
    data = config.data
    validation = {"data.validation": data.validation} if data.validation else {}
    return {
        "data.train": data.train,
        **validation,
        **{f"data.evaluation.{k}": source for k, source in enumerate(data.evaluation)},
    }


def look_at(setting: str, path: str) -> Input:
    """The input as this machine sees it."""
    try:
        return _look_at(setting, path)
    except OSError as error:
        return Input(fingerprint=None, trouble=error.strerror or str(error))


def _look_at(setting: str, path: str) -> Input:
    place = Path(path).expanduser() if setting.startswith(EXPANDED) else Path(path)
    if place.is_dir():
        return Input(fingerprint=_of_folder(place))
    if place.is_file():
        return Input(fingerprint=_of_file(place))
    return Input(fingerprint=None, cached=_cached(path) if setting == "model.path" and not is_a_path(path) else None)


def is_a_path(path: str) -> bool:
    """Whether it can only be a local path: a hub name has at most one slash and begins with neither / . nor ~."""
    return path.count("/") > 1 or path.startswith(("/", ".", "~"))


def may_be_on_hub(setting: str, path: str) -> bool:
    """Whether a run takes it from the hub where no such file is: models and data only, and no name of a data file."""
    of_data = setting.startswith("data.") and setting.endswith(".path")
    if setting != "model.path" and not of_data:
        return False
    return not is_a_path(path) and not (of_data and path.lower().removesuffix(".gz").endswith(FILE_TYPES))


def _of_file(file: Path) -> str:
    digest = hashlib.sha256(str(file.stat().st_size).encode())
    if file.stat().st_size <= WHOLE_FILE_BYTES:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _of_folder(folder: Path) -> str:
    """Names and contents (large files: sizes) of the files right in the folder."""
    digest = hashlib.sha256()
    for file in sorted(entry for entry in folder.iterdir() if entry.is_file()):
        digest.update(f"{file.name} {_of_file(file)}\n".encode(errors="replace"))
    return digest.hexdigest()[:12]


def _cached(name: str) -> bool | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        return None
