"""JSON and JSON Lines on disk: whole or not at all, no NaN inside, any text survives.

Lines are pure ASCII (`\\uXXXX`), so that lone surrogates and U+2028 in a review break neither lines nor encoder.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afa_llm.errors import AfaError, naming


def plain(value: Any) -> Any:
    """`value` in JSON's own types: dataclasses and arrays unfolded, NaN and infinities as None, keys as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, content: Any) -> None:
    """One JSON document, indented. A reader sees the old file or the new one, never a part."""
    write_text(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """One JSON object a line, in the order given; whole or not at all."""
    write_text(path, "".join(json.dumps(plain(record), allow_nan=False) + "\n" for record in records))


def write_text(path: Path, text: str) -> None:
    """UTF-8 to a temporary file beside `path`, flushed to disk, then renamed; characters UTF-8 lacks become `?`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name[:80]}.{os.getpid()}.tmp"
    try:
        with naming(path), temporary.open("wb") as file:
            file.write(text.encode("utf-8", errors="replace"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """Raises AfaError where the file is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AfaError(f"{path}: no such file; is it the folder of a finished run?") from None
    except (ValueError, RecursionError, OSError) as error:  # broken, no UTF-8, a number of 5000 digits
        raise AfaError(f"{path}: cannot be read as JSON: {error}") from None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file. Raises AfaError with the line number where a line is no JSON object, and
    where the file can't be read."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise AfaError(f"{path}: cannot be read: {error.strerror or error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise AfaError(f"{path}:{number}: not a JSON object: {error}") from None
        if not isinstance(record, dict):
            raise AfaError(f"{path}:{number}: a {type(record).__name__}, not a JSON object")
        yield record


def answers_path(folder: Path, data_set: str, template: str, phase: str) -> Path:
    """Where the items of one data set, template and phase are kept."""
    return _kept_as(folder, lambda stem: f"answers_{stem(data_set)}__{stem(template)}__{phase}.jsonl")


def focus_path(folder: Path, data_set: str) -> Path:
    """Where the word focus of one data set's reviews is kept."""
    return _kept_as(folder, lambda stem: f"focus_{stem(data_set)}.jsonl")


def word_counts_path(folder: Path) -> Path:
    """Where the training counts of the words in the focus items are kept: {normal form: count}."""
    return folder / "items" / "train_word_counts.json"


def file_stem(name: str) -> str:
    """`name` where it is safe as part of a file name; else its safe characters and a hash that keeps names apart. No
    stem holds `__` or ends in `_`, so that stems joined by `__` are kept apart too."""
    safe = _safe(name)
    if safe == name and name and name.strip("_") == name:
        return name
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', errors='replace')).hexdigest()[:8]}"


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+|_{2,}", "_", name)[:60]


def _kept_as(folder: Path, named: Callable[[Callable[[str], str]], str]) -> Path:
    """Where a run keeps it, or an earlier version did, which left `_` at the ends of names as they are."""

    def earlier_stem(name: str) -> str:
        return name if _safe(name) == name and name else file_stem(name)

    path, earlier = (folder / "items" / named(stem) for stem in (file_stem, earlier_stem))
    return earlier if earlier.exists() and not path.exists() else path
