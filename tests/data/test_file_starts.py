"""Files that are not what their name says: told so, and not read as broken rows."""

import gzip
import io
import zipfile
from pathlib import Path

import pytest
from row_files import load

from afa_llm.errors import AfaError

CSV = b"text,label\na fine film,1\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("r.csv", CSV)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl", POINTER, "a pointer of Git LFS, not the data itself; fetch it with `git lfs pull`"),
        ("r.parquet", POINTER, "a pointer of Git LFS"),
        ("r.csv", gzip.compress(CSV), "a gzip archive; end its name in .gz"),
        ("r.csv", zipped(), "a zip archive, as spreadsheets are too; unpack it, or save the sheet as .csv"),
        ("r.csv.gz", gzip.compress(zipped()), "a zip archive"),
        ("r.jsonl", b"PAR1\0\0", "a parquet file; end its name in .parquet"),
        ("r.parquet", CSV, "not a readable parquet file"),
        ("r.csv", "text,label\n".encode("utf-16"), "encoded as UTF-16 or UTF-32, or no text at all"),
    ],
    ids=["lfs", "lfs_parquet", "gzip", "zip", "zip_in_gzip", "parquet", "csv_as_parquet", "utf16"],
)
def test_a_file_of_another_kind(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AfaError, match=f"{name}: {message}"):
        load(str(tmp_path / name))
