"""A configured source to labelled reviews: rows are read, checked one by one, and what can't be used is quarantined.

Text and labels are stripped of outer white space, nothing else is changed. Which row a bad one is (file, line, reason,
raw text) stays known to the end.
"""

from __future__ import annotations

import difflib
import math
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afa_llm.config_data import Source
from afa_llm.data.annotations import read_annotations
from afa_llm.data.builtin_rows import builtin_examples
from afa_llm.data.columns import check_columns
from afa_llm.data.datasets_rows import read_hub, read_parquet
from afa_llm.data.edited_rows import by_row, joined
from afa_llm.data.labels import OTHER, LabelMapping, RawLabel
from afa_llm.data.quarantine import BadFieldError, Quarantine
from afa_llm.data.raw_rows import TEXT_READERS, RawRow, id_of, name_of, read_text_file, suffix_of
from afa_llm.data.row_filter import keep_rows
from afa_llm.data.spurious import inject
from afa_llm.data.words import has_word, split_words
from afa_llm.errors import AfaError
from afa_llm.records import Example

FILE_TYPES = (*TEXT_READERS, ".parquet")


def load_examples(
    source: Source,
    labels: dict[str, tuple[RawLabel, ...]],
    *,
    seed: int,
    quarantine: Quarantine,
    labelled: bool = True,
) -> list[Example]:
    """The usable reviews of a source, in file order; bad rows go to `quarantine`.

    With `max_samples`, rows are drawn evenly without replacement by `seed` until so many are good; a smaller number
    with the same seed draws a subset. Reviews of a pair are drawn together. Ids are those of `id_column`, else
    `<title>/<line>`; a repeated id is bad. With `labelled` False nobody asks for the labels: one that `labels` lacks is
    OTHER, and noted. Raises AfaError: no such file or data set, split or column, damaged file, or
    not one usable row.
    """
    examples = _load(source, LabelMapping(labels, others=not labelled), seed, quarantine)
    return inject(examples, source, tuple(labels), seed) if source.spurious else examples


def _load(source: Source, mapping: LabelMapping, seed: int, quarantine: Quarantine) -> list[Example]:
    if source.path.startswith("suite:"):
        raise ValueError(f"{source.path}: resolve_suites comes before loading")
    if source.path.startswith("builtin:") and source.edits_path:
        raise AfaError(f"data source {source.title}: edits_path goes with reviews of your own, not with {source.path}")
    if source.path.startswith("builtin:"):
        examples = builtin_examples(source, mapping)
        quarantine.rows_read += len(examples)
        return drawn(examples, source.max_samples, seed)
    _check_rationale(source)
    rows = _rows(source)
    check_columns(source, rows)
    if (edits_path := source.edits_path) is not None:
        edits = _local_rows(edits_path)
        if edits is None:
            raise AfaError(_no_such_file(edits_path, "edits_path"))
        check_columns(source, edits)
        source, rows = by_row(source), joined(rows, edits, edits_path)
    rows = keep_rows(source, rows, quarantine)
    chosen = _choose(source, mapping, rows, seed, quarantine)
    if not chosen:
        raise AfaError(f"{source.path}: not one usable row:\n{quarantine.summary()}")
    return chosen


def _check_rationale(source: Source) -> None:
    """Raises AfaError for settings of the rationale that would do nothing beside the others."""
    if source.rationale_column and not source.words_column:
        raise AfaError(
            f"data source {source.title}: rationale_column = {source.rationale_column} without words_column; "
            "name the column with the words that its numbers belong to"
        )
    if source.rationale_span_column and source.words_column:
        raise AfaError(
            f"data source {source.title}: rationale_span_column = {source.rationale_span_column} beside words_column = "
            f"{source.words_column}: spans mark words that are split here; leave words_column out, or name a "
            "rationale_column instead of the spans"
        )
    if source.rationale_neutral is not None and not source.rationale_column:
        raise AfaError(
            f"data source {source.title}: rationale_neutral = {source.rationale_neutral} without rationale_column; "
            "name the column whose values it is held against"
        )


def drawn(examples: Sequence[Example], count: int | None, seed: int) -> list[Example]:
    """At most `count` of the examples (none: all), evenly by seed, in their order; those of a pair together."""
    if count is None or count >= len(examples):
        return list(examples)
    members: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        members.setdefault(f"pair {example.pair}" if example.pair else f"row {index}", []).append(index)
    chosen: list[int] = []
    groups = list(members.values())
    for place in shuffled(len(members), seed):
        more = groups[place]
        if len(chosen) + len(more) > count:
            break
        chosen += more
    return [examples[index] for index in sorted(chosen)]


def shuffled(size: int, seed: int) -> list[int]:
    """0 to size − 1 in the seeded order in which rows are drawn."""
    order = list(range(size))
    random.Random(seed).shuffle(order)
    return order


def _rows(source: Source) -> Sequence[RawRow]:
    rows = _local_rows(source.path)
    if rows is not None:
        _check_hub_settings(source)
        return rows
    if suffix_of(source.path) in FILE_TYPES or source.path.startswith(("/", "./", "../", "~")):
        raise AfaError(_no_such_file(source.path, "path"))
    return read_hub(source.path, source.subset, source.split, source.revision)


def _check_hub_settings(source: Source) -> None:
    """Raises AfaError for settings that choose among what the hub has, of a file that is read whole."""
    for setting in ("subset", "revision"):
        if value := getattr(source, setting):
            raise AfaError(
                f"data source {source.title}: {setting} = {value} goes with a data set of the hub, and {source.path} "
                f"is a file; leave {setting} out, or choose rows with `where` or `part`"
            )


def _local_rows(given: str) -> Sequence[RawRow] | None:
    """None where there is no such file. Raises AfaError for a folder, and for files of another type."""
    path = Path(os.path.expanduser(given))
    if os.path.isdir(path):
        files = sorted(file.name for file in path.iterdir() if suffix_of(file) in FILE_TYPES)
        raise AfaError(f"{path}: a folder, not a file; name one of its files: {', '.join(files[:10]) or 'it has none'}")
    if os.path.exists(path):  # Path.exists would fail for a name that is too long
        if suffix_of(path) == ".parquet" and path.suffix != ".gz":
            return read_parquet(path)
        if suffix_of(path) in TEXT_READERS:
            return read_text_file(path)
        raise AfaError(f"{path}: unknown file type; data files end in {', '.join(FILE_TYPES)} (text also with .gz)")
    return None


def _no_such_file(given: str, setting: str) -> str:
    path = Path(os.path.expanduser(given))
    if "://" in given:
        return f"{given}: an address, and files are read from this machine alone; download it and name the file"
    near = difflib.get_close_matches(path.name, _names(path.parent), 1)
    hint = f"; did you mean {path.parent / near[0]}?" if near else f"; check data.*.{setting}"
    return f"{path}: no such file{hint}"


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()] if folder.is_dir() else []


def _choose(
    source: Source, mapping: LabelMapping, rows: Sequence[RawRow], seed: int, quarantine: Quarantine
) -> list[Example]:
    """Good rows in the drawn order until there are enough, then put back into file order. Pairs need all rows read."""
    chosen: dict[int, Example] = {}
    line_of_id: dict[str, int] = {}
    wanted = len(rows) if source.max_samples is None or source.pair_column else source.max_samples
    for index in shuffled(len(rows), seed) if wanted < len(rows) else range(len(rows)):
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
    good = [chosen[index] for index in sorted(chosen)]
    few = drawn(good, source.max_samples, seed) if source.pair_column else good
    if good and not few:
        raise AfaError(
            f"{source.path}: max_samples = {source.max_samples}: the first pair drawn has more reviews, and a pair is "
            "taken whole; set a larger max_samples"
        )
    pairs = Counter(example.pair for example in few if example.pair)
    if source.pair_column and max(pairs.values(), default=0) < 2:  # a column of ids, or of a split
        quarantine.note(f"{source.pair_column}: no two reviews share a pair; no pairs are measured", source.path)
    return few


def _example(source: Source, mapping: LabelMapping, row: RawRow, quarantine: Quarantine) -> Example:
    if row.problem:
        raise BadFieldError(*row.problem)
    text = _text(row.values, source.text_column)
    if source.label_column not in row.values:
        raise BadFieldError(f"no field {source.label_column!r}", f"no field {source.label_column!r}")
    label = mapping.find(row.values[source.label_column])
    if label is None:
        raise BadFieldError(*mapping.explain(row.values[source.label_column]))
    if label == OTHER:
        quarantine.note("label that data.labels lacks; no label is asked for here", f"{row.file}:{row.line}")
    words, rationale, note = read_annotations(source, row.values, text)
    if note:
        quarantine.note(note, f"{row.file}:{row.line}")
    return Example(
        example_id=_id(source, row),
        text=text,
        label=label,
        words=words or split_words(text),
        rationale=rationale,
        group=_name(source.group_column, row.values),
        pair=_name(source.pair_column, row.values),
        side=_side(source.side_column, row.values),
    )


def _text(values: dict[str, Any], column: str) -> str:
    if column not in values:
        raise BadFieldError(f"no field {column!r}", f"no field {column!r}")
    value = values[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise BadFieldError(f"text is missing ({value!r})", "text is missing")
    if not isinstance(value, str):
        raise BadFieldError(f"text has type {type(value).__name__}, not string", "text of wrong type")
    _check_unicode(value, "text")
    if not has_word(value):
        raise BadFieldError("text is empty" if not value.strip() else "text has no visible character", "text is empty")
    return value.strip()


def _id(source: Source, row: RawRow) -> str:
    of_edit = "/edited" if row.edited else ""  # both files may count or name their rows alike
    if source.id_column is None:
        return f"{source.title}/{row.line}{of_edit}"
    value = row.values.get(source.id_column)
    name = id_of(value)
    if not name:
        raise BadFieldError(f"id is {value!r}, not a string or whole number", "id is missing or of wrong type")
    _check_unicode(name, "id")
    return f"{name}{of_edit}"


def _name(column: str | None, values: dict[str, Any]) -> str:
    name = name_of(values.get(column) if column else None)
    _check_unicode(name, str(column))
    return name


def _check_unicode(value: str, what: str) -> None:
    """Half a surrogate pair, as JSON's escapes may spell, can be written to no file."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        where = f"half of a surrogate pair (U+{ord(value[error.start]):04X}) at character {error.start + 1}"
        raise BadFieldError(where if what == "text" else f"{what} has {where}", f"{what} is no Unicode") from None


def _side(column: str | None, values: dict[str, Any]) -> str:
    """A boolean column says whether a review is the original; in a .csv it is text."""
    name = _name(column, values)
    return {"true": "original", "false": "edited"}.get(name.lower(), name)
