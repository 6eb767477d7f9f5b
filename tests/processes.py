"""What a running process was started with, asked of processes that may end meanwhile."""

from __future__ import annotations

import psutil


def command_of(process: psutil.Process) -> list[str]:
    """Its command line; empty once it is gone, for between listing processes and asking them some end."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
