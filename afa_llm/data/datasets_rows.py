"""Rows of parquet files, and of data sets of the hub through the `datasets` library: the one door to that library.

Parquet is read by pyarrow itself: `datasets` refuses a whole file over one column of a type it doesn't know (maps).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from afa_llm.data.file_starts import LONGEST, refuse_other_kind
from afa_llm.data.raw_rows import RawRow, distinct
from afa_llm.errors import AfaError


class HubRows(Sequence[RawRow]):
    """A split, row by row on demand, so that a small draw from a large data set stays cheap."""

    def __init__(self, name: str, table: Any) -> None:
        self._name, self._table = name, table
        self.columns: list[str] = list(table.column_names)

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> RawRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[RawRow]: ...
    def __getitem__(self, index: int | slice) -> RawRow | list[RawRow]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        return RawRow(self._name, index + 1, dict(self._table[index]))


def read_parquet(path: Path) -> list[RawRow]:
    """All rows of a parquet file. Raises AfaError where it is damaged, empty or something else."""
    import pyarrow.parquet

    _check_start(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = distinct(file.schema_arrow.names)
            batches = [zip(*map(_values, batch.columns), strict=True) for batch in file.iter_batches()]
        every = (dict(zip(names, row, strict=True)) for batch in batches for row in batch)
        rows = [RawRow(str(path), number, values) for number, values in enumerate(every, 1)]
    except Exception as error:  # pyarrow raises a dozen kinds here, all meaning the same to a user
        raise AfaError(f"{path}: not a readable parquet file: {_first_line(error)}") from None
    if not rows:
        raise AfaError(f"{path}: holds no rows; name a file with one review a row")
    return rows


def _check_start(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(LONGEST)
    if not start.startswith(b"PAR1"):
        refuse_other_kind(path, start)


def _values(column: Any) -> list[Any]:
    """A column's values in Python's types; a value that has none there would sink them all."""
    try:
        found = list(column.to_pylist())
        return [_text(value) if isinstance(value, bytes) else value for value in found]
    except Exception:  # text that is no UTF-8, a year 30000
        return [_value(cell) for cell in column]


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return bytes(cell.as_buffer())
    except Exception:
        return str(cell.type)


def _text(value: bytes) -> str | bytes:
    """Some writers (Hive, Impala, old Spark) leave it unsaid that their bytes are text."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def parquet_columns(path: Path) -> list[str]:
    """The names of its columns, without reading the rows. Raises AfaError where the file is damaged."""
    import pyarrow.parquet

    _check_start(path)
    try:
        return distinct(pyarrow.parquet.read_schema(path).names)
    except Exception as error:  # as above
        raise AfaError(f"{path}: not a readable parquet file: {_first_line(error)}") from None


def read_hub(name: str, subset: str | None, split: str, revision: str | None) -> HubRows:
    """A split of a hub data set, never running code of it. Raises AfaError naming the splits or subsets there are."""
    import datasets
    from datasets import packaged_modules

    if name in getattr(packaged_modules, "_PACKAGED_DATASETS_MODULES", {}):  # they'd read what lies in this folder
        raise AfaError(f"{name}: a kind of file and no data set; name a file, or a data set of the hub (owner/name)")
    try:
        table = datasets.load_dataset(name, subset, split=split, revision=revision)
    except Exception as error:  # as above; what failed is told apart below
        raise AfaError(_explain(name, subset, split, error)) from None
    if len(table) == 0:
        raise AfaError(f"{name}: split {split!r} holds no rows")
    return HubRows(name, table)


def _explain(name: str, subset: str | None, split: str, error: Exception) -> str:
    text = " ".join(str(cause) for cause in _chain(error))
    known = re.search(r"Should be one of \[(.*?)\]", text)
    if known:
        return f"{name}: no split {split!r}; there are {known.group(1)}"
    if "Config name is missing" in text or "BuilderConfig" in text:
        return f"{name}: subset {subset!r}: {' '.join(str(error).split())[:600]}; set subset"
    if not any(isinstance(cause, OSError) for cause in _chain(error)):  # found, but malformed inside
        cause = list(_chain(error))[-1]
        return f"{name}: does not load: {_first_line(cause)}; download its file and name that, to see the bad rows"
    offline = any(os.environ.get(flag, "") not in ("", "0") for flag in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))
    why = "the hub is switched off by HF_HUB_OFFLINE" if offline else f"{type(error).__name__}: {_first_line(error)}"
    return (
        f"{name}: neither a local file nor a data set that could be reached on the hub ({why}); name a local "
        ".jsonl, .csv or .parquet file, builtin:planted, or a hub data set once downloaded"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
