"""Raw rows of a local text file (.jsonl, .json, .csv, .tsv, each .gz too), with the line each stands in.

Read here line by line, and not through Arrow, so that one bad line costs one row and its reason can be read. Encoding:
UTF-8 with or without BOM; any line end.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import math
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from afa_llm.data.file_starts import LONGEST, refuse_other_kind
from afa_llm.errors import AfaError

NOT_UTF8, BROKEN = "not UTF-8", "broken CSV record"
MOST_LINES = 1000  # of one quoted CSV record; an unclosed quote would swallow the rest of the file


@dataclass(frozen=True)
class RawRow:
    """`line` counts from 1; in files that are no lines (one JSON list, parquet, hub) it is the row.

    `problem` is (reason, kind) where the row doesn't parse; `raw` is then its text. `edited`: it is out of a second
    file, with the edits of the first one's reviews.
    """

    file: str
    line: int
    values: dict[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None
    raw: str = ""
    edited: bool = False


def name_of(value: object) -> str:
    """What a column names, as text; empty where it names nothing (None, NaN, white space)."""
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value).strip()


def distinct(names: Sequence[str]) -> list[str]:
    """The names of columns, those that stand there twice with their place: `label (column 3)`."""
    return [f"{name} (column {k})".strip() if names.count(name) > 1 else name for k, name in enumerate(names, 1)]


def id_of(value: object) -> str:
    """An id as text: a string, or a whole number, which tables with gaps hold as 1.0; empty for anything else."""
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        value = int(value)
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def read_text_file(path: Path) -> list[RawRow]:
    """All rows, as `rows_of` gives them. Raises AfaError as it does, and for files without rows."""
    rows = list(rows_of(path))
    if not rows:
        raise AfaError(f"{path}: holds no rows; name a file with one review a row")
    return rows


def rows_of(path: Path) -> Iterator[RawRow]:
    """One row after the other, those that don't parse with their problem; blank lines are no rows.

    Raises AfaError for damaged archives, files of another kind, UTF-16, UTF-32, and files that can't be opened.
    """
    try:
        yield from TEXT_READERS[suffix_of(path)](path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise AfaError(f"{path}: damaged gzip archive ({error}); compress it anew") from None
    except OSError as error:
        raise AfaError(f"{path}: cannot be read: {error.strerror or error}") from None


def suffix_of(path: Path | str) -> str:
    """The file type in lower case, `.gz` left out: `.jsonl` for reviews.JSONL.gz."""
    return Path(str(path).lower().removesuffix(".gz")).suffix


def lines_of(path: Path) -> Iterator[str]:
    """Lines with their ends; bytes that are no UTF-8 become lone surrogates, by which `bad_bytes` finds them."""
    opening: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opening(path, "rb") as binary:
        refuse_other_kind(path, binary.peek(LONGEST)[:LONGEST])
        yield from io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline="")


def bad_bytes(line: str) -> str | None:
    """The reason where a line holds bytes that are no UTF-8."""
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = ord(line[error.start]) & 0xFF
        return f"byte 0x{byte:02x} at character {error.start + 1} is no UTF-8; save the file as UTF-8"
    return None


def show(line: str) -> str:
    """A line for the quarantine file: undecodable bytes as \\xNN."""
    return line.rstrip("\r\n").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_jsonl(path: Path) -> Iterator[RawRow]:
    """One object a line; or what a .json may be, which programs write under this name too."""
    lines = lines_of(path)
    head = list(itertools.islice(lines, 2))
    first = head[0].strip() if head else ""
    whole = first in ("[", "{") or (first.startswith("[") and len(head) == 1)
    every = itertools.chain(head, lines)
    return _whole_or_lines(path, list(every)) if whole else _json_rows(path, every)


def _json_rows(path: Path, lines: Iterable[str]) -> Iterator[RawRow]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            problem, values = _parse_object(line)
            yield RawRow(str(path), number, values, problem, show(line) if problem else "")


def _parse_object(line: str) -> tuple[tuple[str, str] | None, dict[str, Any]]:
    """((reason, kind), {}) or (None, the object)."""
    reason = bad_bytes(line)
    if reason:
        return (reason, NOT_UTF8), {}
    try:
        value = json.loads(line.rstrip("\r\n"), object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        return (f"not valid JSON: {error.msg} (character {error.colno})", "not valid JSON"), {}
    except (ValueError, RecursionError) as error:
        return (f"not usable JSON: {error}", "not usable JSON"), {}
    problem = _no_row(value)
    return problem, {} if problem else value


class _Object(dict[str, Any]):
    """A JSON object that knows whether it named a key twice, of which json would keep the last without a word."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.twice = next((key for key in self if keys.count(key) > 1), None) if len(self) < len(keys) else None


_Object.__name__ = "object"  # as messages call it


def _no_row(value: Any) -> tuple[str, str] | None:
    """(reason, kind) where a parsed JSON value can't be a row."""
    if not isinstance(value, _Object):
        return f"a JSON {type(value).__name__}, not an object", "not a JSON object"
    if value.twice is not None:
        return f"names the key {value.twice!r} twice", "a key twice"
    return None


def read_json(path: Path) -> Iterator[RawRow]:
    """One list of objects, one object, or one object a line."""
    return _whole_or_lines(path, list(lines_of(path)))


def _whole_or_lines(path: Path, lines: list[str]) -> Iterator[RawRow]:
    text = "".join(lines)
    if not text.lstrip().startswith("["):
        problem, values = _parse_object(text)
        yield from _json_rows(path, lines) if problem else [RawRow(str(path), 1, values)]
        return
    reason = bad_bytes(text)
    if reason:
        raise AfaError(f"{path}: {reason}, or as .jsonl, where one bad line costs one row")
    try:
        values = json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        raise AfaError(
            f"{path} line {error.lineno} column {error.colno}: not valid JSON: {error.msg}; "
            "mend it, or save it as .jsonl, where one bad line costs one row"
        ) from None
    except (ValueError, RecursionError) as error:
        raise AfaError(f"{path}: not usable JSON: {error}; save it as .jsonl, one flat object a line") from None
    for number, value in enumerate(values, 1):
        problem = _no_row(value)
        yield RawRow(str(path), number, {} if problem else value, problem, json.dumps(value) if problem else "")


def read_csv(path: Path) -> Iterator[RawRow]:
    return _separated(path, ",")


def read_tsv(path: Path) -> Iterator[RawRow]:
    return _separated(path, "\t")


def _separated(path: Path, delimiter: str) -> Iterator[RawRow]:
    """Records after the header. One that fails to parse costs its first line; reading goes on with the next line."""
    lines = list(lines_of(path))
    while lines and _blank(lines[-1], delimiter):  # a spreadsheet writes its empty rows too
        lines.pop()
    at, header = _first_record(path, lines, delimiter)
    named = next((k for k in range(len(header), 0, -1) if header[k - 1]), 0)  # without empty columns at the end
    columns = distinct(header)[:named]
    broken = False  # the last line failed: what follows may be its rest
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        fields, used, problem = _record(lines, at, delimiter)
        if not problem and broken and used == 1 and lines[at].count('"') % 2:
            problem = ("a quote without its partner, after a broken record", BROKEN)
        if not problem and used > 1 and _rows_inside(lines[at : at + used], delimiter, len(header)):
            used, problem = 1, ("a quote that only a later row closes", BROKEN)
        broken = problem is not None and problem[1] == BROKEN
        if not problem and not named <= len(fields) <= len(header):
            problem = (f"{len(fields)} fields where the header has {len(header)}", "wrong number of fields")
        nameless = next((field for field in fields[named:] if field.strip()), None)
        if not problem and nameless is not None:  # often the rest of a text with commas
            problem = (f"{nameless[:60]!r} stands under no column name", "a field under no column name")
        if problem:
            yield RawRow(str(path), at + 1, {}, problem, show("".join(lines[at : at + used])))
        else:
            yield RawRow(str(path), at + 1, dict(zip(columns, fields, strict=False)))
        at += used


def _rows_inside(lines: list[str], delimiter: str, width: int) -> bool:
    """Whether one record of a .tsv is several rows: a quotation that spans reviews would join them, labels and all.

    A quoted text may hold line ends, but hardly a tab in each of its lines. Commas it may.
    """
    return delimiter == "\t" and width > 1 and all(line.count(delimiter) == width - 1 for line in lines)


def _first_record(path: Path, lines: list[str], delimiter: str) -> tuple[int, list[str]]:
    """(index of the line after the header, column names)."""
    told = f"sep={delimiter}"  # how a spreadsheet is told what separates the fields
    first = (k for k, line in enumerate(lines) if not (_blank(line, delimiter) or line.lstrip('" ').startswith(told)))
    at = next(first, None)
    if at is None:
        raise AfaError(f"{path}: holds no rows; name a file with a header and one review a row")
    fields, used, problem = _record(lines, at, delimiter)
    names = [name.strip() for name in fields]
    if problem:
        raise AfaError(f"{path} line {at + 1}: the header can't be read: {problem[0]}")
    if not any(names):
        raise AfaError(f"{path} line {at + 1}: the header names no column; write one, such as text{delimiter}label")
    return at + used, names


def _blank(line: str, delimiter: str) -> bool:
    return not line.replace(delimiter, "").strip()


def _record(lines: list[str], at: int, delimiter: str) -> tuple[list[str], int, tuple[str, str] | None]:
    """(fields, lines used, problem) of the record that starts at line `at`; after a failure one line is used."""
    csv.field_size_limit(sys.maxsize)
    window = (lines[k] for k in range(at, min(at + MOST_LINES, len(lines))))
    reader = csv.reader(window, delimiter=delimiter, strict=True)
    try:
        fields = next(reader)
    except csv.Error as error:
        never = "unexpected end" in str(error)
        return [], 1, ("a quote that is never closed" if never else f"not valid CSV: {error}", BROKEN)
    reason = bad_bytes("".join(lines[at : at + reader.line_num]))
    return fields, reader.line_num, (reason, NOT_UTF8) if reason else None


TEXT_READERS: dict[str, Callable[[Path], Iterator[RawRow]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
}
