"""Whether the columns that a source names are there, and where they seem to be if not."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from afa_llm.config_data import Source
from afa_llm.data.datasets_rows import HubRows
from afa_llm.data.raw_rows import RawRow
from afa_llm.errors import AfaError

COLUMN_SETTINGS = tuple(name for name in Source.model_fields if name.endswith("_column"))
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def check_columns(source: Source, rows: Sequence[RawRow]) -> None:
    """Raises AfaError where a configured column stands in no row at all. (Where some rows lack it, those are bad.)"""
    columns = (
        rows.columns if isinstance(rows, HubRows) else list(dict.fromkeys(key for row in rows for key in row.values))
    )
    for setting in COLUMN_SETTINGS:
        name = getattr(source, setting)
        if name is not None and name not in columns and columns:
            raise AfaError(
                f"{rows[0].file}: no column {name!r} (data source {source.title}, {setting}); "
                f"there are {', '.join(columns[:40])}{_hint(name, setting, columns, rows)}"
            )


def _hint(name: str, setting: str, columns: list[str], rows: Sequence[RawRow]) -> str:
    twice = [column for column in columns if column.startswith(f"{name} (column ")]
    if twice:
        return f"; the file has several of that name: rename one, or set {setting}='{twice[0]}'"
    separator = next((sign for sign in SEPARATORS if len(columns) == 1 and sign in columns[0]), None)
    if separator:
        return f"; its fields seem to be separated by {SEPARATORS[separator]}, a .csv has commas: save it so" + (
            ", or end its name in .tsv" if separator == "\t" else ""
        )
    held = rows[0].values.items() if len(rows) == 1 else ()
    inside = next((key for key, value in held if isinstance(value, list) and value and isinstance(value[0], dict)), "")
    if inside:
        return f"; the rows seem to stand in {inside!r}: save that list alone"
    folded = {column.lower(): column for column in columns}
    near = difflib.get_close_matches(name.lower(), folded, 1)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""
