"""Files that are on the disk: what a write says where there is no room."""

from __future__ import annotations

from pathlib import Path

import pytest

from afa_llm.training.durable_files import digest_of, write_durably


def test_a_full_disk_is_told_with_the_path(tmp_path: Path) -> None:
    assert write_durably(tmp_path / "file", b"some") == digest_of(tmp_path / "file")
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_durably(Path("/dev/full"), b"some")
