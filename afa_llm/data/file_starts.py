"""Files that are not what their name says, by their first bytes."""

from __future__ import annotations

from pathlib import Path

from afa_llm.errors import AfaError

LONGEST = 32
"""First bytes that have to be known."""
STARTS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the data itself; fetch it with `git lfs pull`",
    b"\x1f\x8b": "a gzip archive; end its name in .gz",
    b"PK\x03\x04": "a zip archive, as spreadsheets are too; unpack it, or save the sheet as .csv in UTF-8",
    b"\xfd7zXZ": "an xz archive; unpack it",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it",
    b"PAR1": "a parquet file; end its name in .parquet",
}


def refuse_other_kind(path: Path, start: bytes) -> None:
    """Raises AfaError where a file of reviews begins as one of STARTS does, or is text in UTF-16 or UTF-32."""
    for known, what in STARTS.items():
        if start.startswith(known):
            raise AfaError(f"{path}: {what}")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start[:4]:
        raise AfaError(f"{path}: encoded as UTF-16 or UTF-32, or no text at all; save it as UTF-8")
