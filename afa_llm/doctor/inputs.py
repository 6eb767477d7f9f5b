"""Files that a run reads on every node: which settings name them, and whether nodes hold the same ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

from afa_llm.config import Config
from afa_llm.doctor.findings import Input

WHOLE_FILE_BYTES = 64 * 2**20
"""Larger files are compared by size alone: reading a model from every node would take minutes."""


def input_paths(config: Config, config_file: str | None) -> dict[str, str]:
    """Setting -> path or hub name of everything that every rank opens, but what the package itself brings."""
    named = {
        "CONFIG": config_file,
        "model.path": config.model.path,
        "data.train.path": config.data.train.path,
        "prompts.file": config.prompts.file,
        "evaluation.lexicon": config.evaluation.lexicon,
        "training.deepspeed_file": config.training.deepspeed_file,
    }
    named |= {f"data.evaluation.{k}.path": source.path for k, source in enumerate(config.data.evaluation)}
    return {setting: path for setting, path in named.items() if path and not path.startswith("builtin:")}


def look_at(setting: str, path: str) -> Input:
    """The input as this machine sees it. Raises OSError where it is there and cannot be read."""
    place = Path(path).expanduser() if setting.startswith("data.") else Path(path)
    if place.is_dir():
        return Input(fingerprint=_of_folder(place))
    if place.is_file():
        return Input(fingerprint=_of_file(place))
    return Input(fingerprint=None, cached=_cached(path) if setting == "model.path" and not is_a_path(path) else None)


def is_a_path(path: str) -> bool:
    """Whether it can only be a local path: a hub name has at most one slash and begins with neither / . nor ~."""
    return path.count("/") > 1 or path.startswith(("/", ".", "~"))


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
