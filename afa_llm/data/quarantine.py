"""Rows that can't be used: kept with file, line, reason and raw text, counted and written out."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from afa_llm.errors import AfaError

RAW_CHARACTERS = 2000
DEFAULT_SHARE = 0.10
KINDS_SHOWN = 10  # in a summary; where a wrong column is read as the label, every row has a kind of its own


class BadFieldError(Exception):
    """Why a row can't be used: (reason, kind)."""


@dataclass(frozen=True)
class BadRow:
    """`file` is a path, a hub name, or the id of a review set aside after loading (`line` is then None).

    `line` counts from 1: the line of a text file (where a record spans several, its first), else the row. `kind` is the
    reason without its particulars, by which rows are counted.
    """

    file: str
    line: int | None
    reason: str
    raw: str
    kind: str = ""

    @property
    def place(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass
class Quarantine:
    """Bad rows in the order met. `notes`: what was used, but not as given (words that didn't align, …) -> its places.

    `left_out` counts rows that a setting leaves out (Source.where, exclude_ids), by which: they are not bad.
    `rows_read` counts the rows that were tried, good and bad, without those left out; the loader keeps it.
    """

    rows: list[BadRow] = field(default_factory=list)
    notes: dict[str, dict[str, None]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    rows_read: int = 0

    def add(self, file: str, line: int | None, reason: str, raw: object, *, kind: str = "") -> None:
        text = raw if isinstance(raw, str) else _as_text(raw)
        if len(text) > RAW_CHARACTERS:
            text = f"{text[:RAW_CHARACTERS]}… ({len(text)} characters)"
        self.rows.append(BadRow(file, line, reason, text, kind or reason))

    def absorb(self, other: Quarantine) -> None:
        """Take over another's rows, notes and count, each place once: a review may fail under several templates."""
        known = {row.place for row in self.rows}
        self.rows += [row for row in other.rows if row.place not in known]
        for what, places in other.notes.items():
            self.notes.setdefault(what, {}).update(places)
        self.left_out.update(other.left_out)  # += would drop those counted 0
        self.rows_read += other.rows_read

    def note(self, what: str, place: str) -> None:
        self.notes.setdefault(what, {})[place] = None

    def write(self, path: str | os.PathLike[str]) -> Path | None:
        """The bad rows as JSONL under `path`, whole or not at all; None and no file where there are none."""
        if not self.rows:
            return None
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({k: v for k, v in asdict(row).items() if k != "kind"}) for row in self.rows]
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def summary(self) -> str:
        """One line for each of the commonest kinds of reason with its count and first example, how many rows more there
        are, then notes and rows left out, if any."""
        counts = Counter(row.kind for row in self.rows)
        firsts = {row.kind: row for row in reversed(self.rows)}
        lines = []
        for kind, count in counts.most_common(KINDS_SHOWN):
            first = firsts[kind]
            lines.append(f"{count} × {kind}; first at {first.place}: {first.reason}; {_short(first.raw)}")
        if len(counts) > KINDS_SHOWN:
            shown = sum(count for _, count in counts.most_common(KINDS_SHOWN))
            lines.append(f"{len(self.rows) - shown} × for {len(counts) - KINDS_SHOWN} further reasons")
        lines += [
            f"{len(places)} × {note}; first at {next(iter(places))} (used all the same)"
            for note, places in sorted(self.notes.items(), key=lambda item: -len(item[1]))
        ]
        lines += [f"{count} × left out by {setting}" for setting, count in self.left_out.most_common()]
        return "\n".join(lines)

    def check(self, limit: int | None, total: int | None = None) -> None:
        """Raises AfaError where more rows are bad than `limit` (None: a tenth of `total`, by default rows_read)."""
        total = self.rows_read if total is None else total
        allowed = limit if limit is not None else DEFAULT_SHARE * total
        if len(self.rows) > allowed:
            rule = f"data.max_bad_rows = {limit}" if limit is not None else "the default limit of 10 percent"
            raise AfaError(
                f"{len(self.rows)} of {total} rows are bad, over {rule}:\n{self.summary()}\n"
                "mend the file or the data settings (`where` of the data source leaves out what is not wanted), "
                "or raise data.max_bad_rows"
            )


def _as_text(raw: object) -> str:
    try:
        return json.dumps(raw, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return repr(raw)


def _short(raw: str) -> str:
    return repr(raw if len(raw) <= 80 else raw[:80] + "…")
