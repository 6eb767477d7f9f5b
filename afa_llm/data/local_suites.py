"""A suite's split among the local files of its folder: one file, or two whose rows are pairs, and its columns there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from afa_llm.data.datasets_rows import parquet_columns
from afa_llm.data.raw_rows import TEXT_READERS, rows_of, suffix_of
from afa_llm.data.suite_catalogue import Columns, Suite, fields_of
from afa_llm.errors import AfaError

ENDINGS = (*TEXT_READERS, *(f"{ending}.gz" for ending in TEXT_READERS), ".parquet")
SPLIT_NAMES = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}


def local_split(suite: Suite, split: str, folder: Path | None) -> dict[str, Any] | None:
    """Settings of the suite's file, None where no folder of it is there.

    Raises AfaError where the split is missing, or its file can't be read.
    """
    places = [folder / name for name in suite.folders if (folder / name).is_dir()] if folder else []
    if not places:
        return None
    names = SPLIT_NAMES.get(split, (split,))
    files = [place / f"{name}{end}" for place in places for name in names for end in ENDINGS]
    there = [file for file in files if file.is_file()]
    edits = {}
    if suite.two_files:
        pairs = [(_with(file, suite.two_files[0]), _with(file, suite.two_files[1])) for file in files]
        edits = {originals: edited for originals, edited in pairs if originals.is_file() and edited.is_file()}
    there += edits
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
    if there[0] in edits:
        found["edits_path"] = str(edits[there[0]])
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


def _with(file: Path, end: str) -> Path:
    """test.tsv.gz with `_original` at the end of its name: test_original.tsv.gz."""
    stem, dot, rest = file.name.partition(".")
    return file.with_name(f"{stem}{end}{dot}{rest}")


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
