"""Originals in one file, their edits in another, row by row: so contrast sets are published (Gardner et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from afa_llm.config_data import Source
from afa_llm.data.raw_rows import RawRow
from afa_llm.errors import AfaError

PAIR, SIDE = "pair (by row)", "side (by file)"
"""Columns that the joined rows have beside their own."""
ORIGINAL, EDITED = "original", "edited"


def by_row(source: Source) -> Source:
    """The source of joined rows: row and file say what belongs together and which is which."""
    return source.model_copy(update={"pair_column": PAIR, "side_column": SIDE})


def joined(originals: Sequence[RawRow], edits: Sequence[RawRow], edits_path: str) -> list[RawRow]:
    """Each original and, right behind it, its edit. Rows that don't parse stay what they are.

    Raises AfaError where one file has more rows: then nobody knows which belongs to which.
    """
    if len(originals) != len(edits):
        raise AfaError(
            f"edits_path = {edits_path}: {len(edits)} rows, and {len(originals)} in {originals[0].file}; the n-th row "
            "of the one must be the edit of the n-th row of the other"
        )
    return [
        replace(row, values={**row.values, PAIR: f"row {place}", SIDE: side}, edited=side == EDITED)
        for place, both in enumerate(zip(originals, edits, strict=True), 1)
        for row, side in zip(both, (ORIGINAL, EDITED), strict=True)
    ]
