"""How a command ends where its output or a path can't be used: told, and not a crash."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from afa_llm.errors import AfaError

UNUSABLE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR,
}  # fmt: skip


@contextmanager
def told_endings() -> Iterator[None]:
    """A command, with all that it printed written out before it counts as done.

    Raises AfaError for a path that can't be used. The parts that open paths say which setting names them; this is for
    what they let through, such as a disk that is full by now.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # None where it was closed before the start
                sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output (`| head`) has gone; Python would try to flush it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        raise AfaError(f"{error.filename or 'output'}: {error.strerror}") from error
