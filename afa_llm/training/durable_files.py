"""Files that are on the disk, not only in its cache, and folders that appear whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from afa_llm.errors import naming


def write_durably(path: Path, data: bytes) -> str:
    """Write, sync, and return the SHA-256 of what was meant. Raises OSError (disk full, read-only) with the path."""
    with naming(path), path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def publish_folder(partial: Path, final: Path) -> None:
    """Give a finished folder its name; what bore it before is gone only afterwards. Raises OSError.

    A kill at any moment leaves the old folder, the new one, or the old one under its `.old_` name beside nothing,
    which `recover_folder` puts back.
    """
    sync_folder(partial)
    old = final.with_name(f".old_{final.name}")
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
    partial.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Take the name away first: a kill half way leaves no half of a folder under it. Raises OSError where it can't.

    Files that somebody reads cannot go on every file system (NFS): `recover_folders` tries again.
    """
    gone = path.with_name(f".gone_{path.name}")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def recover_folders(parent: Path) -> None:
    """Put back what a kill inside `publish_folder` left under its `.old_` name, finish what `remove_folder` began."""
    for gone in parent.glob(".gone_*"):
        shutil.rmtree(gone, ignore_errors=True)
    for old in parent.glob(".old_*"):
        final = parent / old.name.removeprefix(".old_")
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(final)


def sync_folder(folder: Path) -> None:
    """Names inside a folder are durable only when the folder itself is synced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_file(path: Path) -> int | None:
    """An exclusive lock on a file that is made if need be, held while the descriptor is open; None where it is taken.

    File systems that know no locks give a descriptor without one. Raises OSError where the file cannot be opened.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # its holder removed the file meanwhile: whoever comes next locks another one
