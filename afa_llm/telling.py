"""What a command says beside its results: lines on stderr."""

from __future__ import annotations

import os
import sys


def on_terminal() -> bool:
    """Whether somebody reads along, so that a line may renew itself."""
    return sys.stderr is not None and sys.stderr.isatty()


def tell(text: str, end: str = "\n") -> None:
    """A line for the user. Where it cannot be written (the reader of a pipe has gone, the terminal is closed, the disk
    is full) it is lost, with those that follow: the work goes on, and the command ends with the exit code it earned."""
    if sys.stderr is None:  # closed from the start; print would take stdout, where results go
        return
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
