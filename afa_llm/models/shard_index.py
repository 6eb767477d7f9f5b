"""The index of a model whose weights lie in several files, checked before transformers goes by it."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from afa_llm.errors import AfaError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
AGAIN = "copy the model's files anew"


def check_shard_index(where: str, revision: str | None, path: str, named: str | None) -> None:
    """Raises AfaError where the index cannot be read, or names files of another kind (transformers would unpickle
    them), outside the model's folder, or, in a local one, that are not there. Nothing where no index is read.

    `where`: folder or hub name; `named`: the file of weights that config.json names, if any.
    """
    from transformers.utils import cached_file

    local = os.path.isdir(where)
    if (named and not named.endswith(".index.json")) or (not named and local and Path(where, WHOLE).is_file()):
        return
    found = cached_file(
        where,
        named or INDEX,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if not found:
        return
    start = f"model.path = {path}: {named or INDEX}"
    for shard in _shards(Path(found), start):
        if not shard.endswith(".safetensors"):
            raise AfaError(
                f"{start} names {shard}, no safetensors file; convert it first (pickled weights are refused)"
            )
        if PurePosixPath(shard).is_absolute() or ".." in PurePosixPath(shard).parts:
            raise AfaError(f"{start} names {shard}, which lies outside the model's folder; put all its files into one")
        if local and not Path(where, shard).is_file():
            raise AfaError(f"{start} names {shard}, which is not there; {AGAIN}")


def _shards(index: Path, start: str) -> list[str]:
    """The files that an index names, each once."""
    try:
        told: Any = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AfaError(f"{start} cannot be read as JSON ({error}); {AGAIN}") from None
    files = told.get("weight_map") if isinstance(told, dict) else None
    named = list(files.values()) if isinstance(files, dict) else []
    if not named or not all(isinstance(file, str) for file in named) or not isinstance(told.get("metadata"), dict):
        raise AfaError(
            f"{start} is no index of weights: it needs an object weight_map that names a file for each weight, and an "
            f"object metadata (which may be empty); {AGAIN}"
        )
    return sorted(set(named))
