"""A configured source to labelled reviews: rows are read, checked one by one, and what can't be used is quarantined.

Text and labels are stripped of outer white space, nothing else is changed. Which row a bad one is (file, line, reason,
raw text) stays known to the end.
"""

from __future__ import annotations

import difflib
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from afa_llm.config import Source
from afa_llm.data.annotations import read_annotations
from afa_llm.data.datasets_rows import HubRows, read_hub, read_parquet
from afa_llm.data.labels import LabelMapping, RawLabel
from afa_llm.data.planted import CLASSES, DATA_SEED, SIZES, planted_examples
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.raw_rows import TEXT_READERS, RawRow, read_text_file, suffix_of
from afa_llm.data.words import split_words
from afa_llm.errors import AfaError
from afa_llm.records import Example

FILE_TYPES = (*TEXT_READERS, ".parquet")


class BadFieldError(Exception):
    """Why a row can't be used: (reason, kind)."""


def load_examples(
    source: Source, labels: dict[str, tuple[RawLabel, ...]], *, seed: int, quarantine: Quarantine
) -> list[Example]:
    """The usable reviews of a source, in file order; bad rows go to `quarantine`.

    With `max_samples`, rows are drawn evenly without replacement by `seed` until so many are good; a smaller number
    with the same seed draws a subset. Ids are those of `id_column`, else `<title>/<line>`; a repeated id is bad.
    Raises AfaError: no such file or data set, split or column, damaged file, or not one usable row.
    """
    if source.path == "builtin:planted":
        return drawn(_planted(source, LabelMapping(labels), quarantine), source.max_samples, seed)
    if source.path.startswith("builtin:"):
        raise AfaError(f"{source.path}: no such builtin data; there is builtin:planted")
    if source.rationale_column and not source.words_column:
        raise AfaError(
            f"data source {source.title}: rationale_column = {source.rationale_column} without words_column; "
            "name the column with the words that its numbers belong to"
        )
    mapping = LabelMapping(labels)
    rows = _rows(source)
    _check_columns(source, rows)
    chosen = _choose(source, mapping, rows, seed, quarantine)
    if not chosen:
        raise AfaError(f"{source.path}: not one usable row:\n{quarantine.summary()}")
    return chosen


def drawn(examples: Sequence[Example], count: int | None, seed: int) -> list[Example]:
    """`count` of the examples (none: all), evenly by seed, in their order."""
    return [examples[k] for k in sorted(_order(len(examples), count, seed)[:count])]


def _planted(source: Source, mapping: LabelMapping, quarantine: Quarantine) -> list[Example]:
    """The builtin reviews in their default number, always the same, with the classes of the mapping."""
    examples = planted_examples(source.split, SIZES.get(source.split, 0), DATA_SEED)
    classes = []
    for value, name in enumerate(CLASSES):
        label = next((found for found in map(mapping.find, (value, name)) if found is not None), None)
        if label is None:
            raise AfaError(f"builtin:planted: its labels are 0 (negative) and 1 (positive); data.labels lacks {value}")
        classes.append(label)
    quarantine.rows_read += len(examples)
    return [
        replace(example, example_id=f"{source.title}/{k}", label=classes[example.label])
        for k, example in enumerate(examples, 1)
    ]


def _order(size: int, count: int | None, seed: int) -> list[int]:
    """Row numbers in the order in which they are tried: the file's own, or a seeded shuffle where some are drawn."""
    order = list(range(size))
    if count is not None and count < size:
        random.Random(seed).shuffle(order)
    return order


def _rows(source: Source) -> Sequence[RawRow]:
    path = Path(source.path).expanduser()
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if suffix_of(file) in FILE_TYPES)
        raise AfaError(f"{path}: a folder, not a file; name one of its files: {', '.join(files[:10]) or 'it has none'}")
    if path.exists():
        if suffix_of(path) == ".parquet" and path.suffix != ".gz":
            return read_parquet(path)
        if suffix_of(path) in TEXT_READERS:
            return read_text_file(path)
        raise AfaError(f"{path}: unknown file type; data files end in {', '.join(FILE_TYPES)} (text also with .gz)")
    if suffix_of(path) in FILE_TYPES or source.path.startswith(("/", "./", "../", "~")):
        near = difflib.get_close_matches(path.name, _names(path.parent), 1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else "; check data.*.path"
        raise AfaError(f"{path}: no such file{hint}")
    return read_hub(source.path, source.subset, source.split, source.revision)


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()] if folder.is_dir() else []


def _check_columns(source: Source, rows: Sequence[RawRow]) -> None:
    """Raises AfaError where a configured column stands in no row at all. (Where some rows lack it, those are bad.)"""
    columns = (
        rows.columns if isinstance(rows, HubRows) else list(dict.fromkeys(key for row in rows for key in row.values))
    )
    for setting in ("text_column", "label_column", "id_column", "group_column", "words_column", "rationale_column"):
        name = getattr(source, setting)
        if name is None or name in columns or not columns:
            continue
        folded = {column.lower(): column for column in columns}
        near = difflib.get_close_matches(name.lower(), folded, 1)
        hint = f"; did you mean {folded[near[0]]!r}?" if near else ""
        raise AfaError(
            f"{rows[0].file}: no column {name!r} (data source {source.title}, {setting}); "
            f"there are {', '.join(columns[:40])}{hint}"
        )


def _choose(
    source: Source, mapping: LabelMapping, rows: Sequence[RawRow], seed: int, quarantine: Quarantine
) -> list[Example]:
    """Good rows in the drawn order until there are enough, then put back into file order."""
    chosen: dict[int, Example] = {}
    line_of_id: dict[str, int] = {}
    wanted = source.max_samples or len(rows)
    for index in _order(len(rows), source.max_samples, seed):
        if len(chosen) == wanted:
            break
        row = rows[index]
        quarantine.rows_read += 1
        try:
            example = _example(source, mapping, row, quarantine)
            first = line_of_id.setdefault(example.example_id, row.line)
            if first != row.line:
                raise BadFieldError(f"id {example.example_id!r} stands in line {first} too", "repeated id")
        except BadFieldError as bad:
            quarantine.add(row.file, row.line, bad.args[0], row.raw or row.values, kind=bad.args[1])
        else:
            chosen[index] = example
    return [chosen[index] for index in sorted(chosen)]


def _example(source: Source, mapping: LabelMapping, row: RawRow, quarantine: Quarantine) -> Example:
    if row.problem:
        raise BadFieldError(*row.problem)
    text = _text(row.values, source.text_column)
    if source.label_column not in row.values:
        raise BadFieldError(f"no field {source.label_column!r}", f"no field {source.label_column!r}")
    label = mapping.find(row.values[source.label_column])
    if label is None:
        raise BadFieldError(*mapping.explain(row.values[source.label_column]))
    words, rationale, note = read_annotations(source, row.values, text)
    if note:
        quarantine.note(note)
    return Example(
        example_id=_id(source, row),
        text=text,
        label=label,
        words=words or split_words(text),
        rationale=rationale,
        group=_group(source, row.values),
    )


def _text(values: dict[str, Any], column: str) -> str:
    if column not in values:
        raise BadFieldError(f"no field {column!r}", f"no field {column!r}")
    value = values[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise BadFieldError(f"text is missing ({value!r})", "text is missing")
    if not isinstance(value, str):
        raise BadFieldError(f"text has type {type(value).__name__}, not string", "text of wrong type")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        point = ord(value[error.start])
        reason = f"half of a surrogate pair (U+{point:04X}) at character {error.start + 1}"
        raise BadFieldError(reason, "text is no Unicode") from None
    if not split_words(value):
        raise BadFieldError("text is empty" if not value.strip() else "text has no visible character", "text is empty")
    return value.strip()


def _id(source: Source, row: RawRow) -> str:
    if source.id_column is None:
        return f"{source.title}/{row.line}"
    value = row.values.get(source.id_column)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise BadFieldError(f"id is {value!r}, not a string or whole number", "id is missing or of wrong type")
    return str(value).strip()


def _group(source: Source, values: dict[str, Any]) -> str:
    value = values.get(source.group_column) if source.group_column else None
    return "" if value is None else str(value).strip()
