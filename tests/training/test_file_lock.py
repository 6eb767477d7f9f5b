"""Locks that are taken, let go, taken away with their file, and not to be had."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from afa_llm.training.durable_files import lock_file


def test_one_at_a_time(tmp_path: Path) -> None:
    first = lock_file(tmp_path / "x.lock")
    assert first is not None
    assert lock_file(tmp_path / "x.lock") is None
    os.close(first)
    again = lock_file(tmp_path / "x.lock")
    assert again is not None
    os.close(again)


def test_a_file_that_its_owner_removes_at_the_end_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened before the owner removed it, locked after: another process would lock a new file of that name."""
    path, flock, tries = tmp_path / "x.lock", fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        tries.append(descriptor)
        if len(tries) == 1:
            path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    found = lock_file(path)
    monkeypatch.setattr(fcntl, "flock", flock)
    assert found is not None and len(tries) == 2
    assert lock_file(path) is None
    os.close(found)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    found = lock_file(tmp_path / "x.lock")
    assert found is not None
    os.close(found)


def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lock_file(tmp_path / "none" / "x.lock")
