"""DeepSpeed's hostfile: one `host slots=N` a line, comments and blank lines between."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from afa_llm.errors import AfaError

_LINE = re.compile(r"(\S+)\s+slots=(\d+)(\s+\w+=\S+)*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%@-]*")
"""No leading dash: ssh would take such a name for an option."""


@dataclass(frozen=True)
class Host:
    """One line of a hostfile. slots: the processes that the launcher starts there."""

    name: str
    slots: int


def read_hostfile(path: Path) -> list[Host]:
    """The hosts in their order; the first one is the head node.

    Raises AfaError with file and line: unreadable, not a file, no `host slots=N`, slots=0, a host named twice,
    or no host at all.
    """
    try:
        if path.exists() and not path.is_file():
            raise AfaError(f"--hostfile {path}: not a file; the launcher would train on this machine alone")
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise AfaError(f"--hostfile {path}: no such file; leave it out to check this machine alone") from None
    except (OSError, UnicodeDecodeError) as error:
        raise AfaError(f"--hostfile {path}: cannot be read: {error}") from None
    found: dict[str, tuple[int, Host]] = {}
    for number, line in enumerate(lines, 1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        host = _host(text, f"{path} line {number}: {line.strip()!r}")
        if host.name in found:
            first = found[host.name][0]
            raise AfaError(f"{path} line {number}: {host.name} stands in line {first} already; one line a host")
        found[host.name] = (number, host)
    if not found:
        raise AfaError(f"{path}: names no host; write one `host slots=N` a line")
    return [host for _, host in found.values()]


def _host(text: str, where: str) -> Host:
    match = _LINE.fullmatch(text)
    if not match:
        raise AfaError(f"{where}: not `host slots=N`; such as: {text.split()[0]} slots=8")
    name, slots = match[1], int(match[2])
    if not _HOST.fullmatch(name):
        raise AfaError(f"{where}: {name!r} is no host name; letters, digits and . _ - : @ only")
    if slots == 0:
        raise AfaError(f"{where}: slots=0 starts nothing there; set 1 or more, or take the line out")
    return Host(name, slots)
