"""The errors that end a run with one clear message and an exit code of their own; everything else is a crash (1)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER_ERROR = 2
STOPPED = 75
PEER_LOST = 76
INTERRUPTED = 130


class AfaError(Exception):
    """What is wrong, where, and what to set instead. The CLI prints it alone, without a traceback, and exits with 2."""

    exit_code = USER_ERROR


class StoppedError(AfaError):
    """The run was asked to stop by a signal, and what was learned is saved: run.resume=true goes on from there.

    Exit code 75 (EX_TEMPFAIL of sysexits.h: try again).
    """

    exit_code = STOPPED


class EnginesFailedError(AfaError):
    """The engines that answer masked prompts failed for good, or hold another adapter than the trainer's.

    Raised on all ranks at the same place, so that they can save together what was learned.
    """


class PeerLostError(AfaError):
    """Another rank ended, hangs or cannot be reached; the message names it and its step. Exit code 76.

    `told_here`: whether this rank is the one that tells the user.
    """

    exit_code = PEER_LOST
    told_here = True


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Writing to an open file: an OSError inside, as of a full disk, does not say by itself which file it was."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
