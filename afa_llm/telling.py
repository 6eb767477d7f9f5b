"""What a command says: lines on stderr beside its results, and the console that tables of results go to."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


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


def results_console(width: int | None = None) -> Console:
    """Tables and shaded text on stdout. Where the reader of a pipe has gone (`| head`) rich alone would end the command
    with 1, a crash; the command ends as it does where it prints."""
    from rich.console import Console

    class Results(Console):
        def on_broken_pipe(self) -> None:
            raise  # the BrokenPipeError that rich is handling as it calls this

    return Results(width=width)
