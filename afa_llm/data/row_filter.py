"""Rows that a setting leaves out, by the value of a column, by id, or by a hash of the text: counted, and not bad."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from afa_llm.config_data import Source
from afa_llm.data.duplicates import normalised
from afa_llm.data.labels import label_key
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.raw_rows import RawRow, id_of, name_of
from afa_llm.errors import AfaError


def keep_rows(source: Source, rows: Sequence[RawRow], quarantine: Quarantine) -> Sequence[RawRow]:
    """The rows that `where`, `exclude_ids` and `part` leave; the others are counted. Those that don't parse stay, each
    in one part.

    Raises AfaError: a column of `where` that no row has, no file of ids, or nothing left.
    """
    if not source.where and not source.exclude_ids and source.part is None:
        return rows
    _check_columns(source, rows)
    excluded = _ids(source)
    wanted = {column: {label_key(value) for value in values} for column, values in source.where.items()}
    kept = []
    if source.exclude_ids:
        quarantine.left_out["exclude_ids"] += 0  # told too where no id is met: they may be of another kind
    for row in rows:
        setting = _left_out_by(source, row, wanted, excluded)
        if setting:
            quarantine.left_out[setting] += 1
        else:
            kept.append(row)
    if not kept:
        raise AfaError(f"{source.path}: where, exclude_ids and part leave no row:\n{quarantine.summary()}")
    return kept


def _left_out_by(source: Source, row: RawRow, wanted: dict[str, set[str | None]], excluded: set[str]) -> str:
    if not row.problem:  # of such a row nobody knows the columns
        for column, values in wanted.items():
            if label_key(row.values.get(column)) not in values:
                return f"where.{column}"
        if source.id_column and id_of(row.values.get(source.id_column)) in excluded:
            return "exclude_ids"
    if source.part is not None and not source.part[0] <= _place(source, row) < source.part[1]:
        return "part"
    return ""


def _place(source: Source, row: RawRow) -> float:
    """In [0, 1), even over texts: where `part` finds a row. The same for the same review, and for all of a pair."""
    pair = name_of(row.values.get(source.pair_column) if source.pair_column else None)
    text = row.values.get(source.text_column)
    name = f"pair {pair}" if pair else normalised(text) if isinstance(text, str) else ""
    name = name or f"row {row.line}"  # without a text it is a bad one: they should not all fall into one part
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "replace")).digest()[:6], "big") / 2**48


def _ids(source: Source) -> set[str]:
    if source.exclude_ids is None:
        return set()
    if source.id_column is None:
        raise AfaError(f"data source {source.title}: exclude_ids without id_column; name the column that holds the ids")
    try:
        lines = Path(os.path.expanduser(source.exclude_ids)).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AfaError(
            f"data source {source.title}: exclude_ids = {source.exclude_ids}: cannot be read: {error}; "
            "name a text file in UTF-8"
        ) from None
    return {line.strip() for line in lines if line.strip()}


def _check_columns(source: Source, rows: Sequence[RawRow]) -> None:
    columns = {column for row in rows for column in row.values} if source.where else set()
    for column in source.where:
        if column not in columns:
            known = ", ".join(sorted(columns)[:40])
            raise AfaError(
                f"data source {source.title}: where.{column}: no such column in {source.path}; there are {known}"
            )
