"""How a command ends: told where output or a path can't be used, and as a rank of a job without a late abort."""

from __future__ import annotations

import atexit
import errno
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from afa_llm.errors import AfaError
from afa_llm.torch_companions import companion_trouble

UNUSABLE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR,
    errno.EISDIR, errno.EEXIST,
}  # fmt: skip


@contextmanager
def told_endings() -> Iterator[None]:
    """A command, with all that it printed written out before it counts as done.

    Raises AfaError for a path that can't be used, and for packages that break an import of transformers. The parts that
    open paths say which setting names them; this is for what they let through, such as a disk that is full by now.
    """
    if getattr(sys.stdout, "errors", "") == "strict":  # what its encoding can't hold is escaped, as on stderr
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # None where it was closed before the start
                sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_gone():
            raise  # another pipe or connection: the command is not done
        # Whoever read the output (`| head`) has gone; Python would try to flush it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in UNUSABLE:
            raise
        raise AfaError(f"{error.filename or 'output'}: {error.strerror}") from error
    except ImportError as error:
        trouble = companion_trouble(error)
        if trouble is None:
            raise
        raise AfaError(trouble) from error


def _reader_gone() -> bool:
    """Whether nobody reads stdout any more."""
    if sys.stdout is None:
        return False
    poll = select.poll()
    poll.register(sys.stdout, 0)  # errors are told unasked
    return any(happened & select.POLLERR for _, happened in poll.poll(0))


def end_process(exit_code: int) -> NoReturn:
    """End the process: as `sys.exit` does, but a rank of a job is not taken down by its own communication threads.

    DeepSpeed keeps its process groups, so gloo's threads outlive destroy_process_group. One that frees a tensor while
    the interpreter ends aborts the process ("terminate called without an active exception"), and the launcher takes a
    job that is done for a failed one. A rank therefore runs its exit handlers, writes out what was printed, and goes.
    """
    waited_for = [t for t in threading.enumerate() if t is not threading.main_thread() and not t.daemon]
    if "RANK" in os.environ and "torch" in sys.modules and not waited_for:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
