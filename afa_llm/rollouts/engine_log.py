"""Why an engine ended, in one line of its log."""

from __future__ import annotations

import re
from pathlib import Path

ERROR = re.compile(r"\b(?:[A-Za-z]*(?:Error|Exception)|error): \S")
CHATTER = re.compile(r"\b(?:DEBUG|INFO|WARNING)\b|Engine core initialization failed")
"""A warning may quote an error that did not happen; the last one only says that there was another before it."""
MOST = 600  # characters


def reason_in(log: Path, start: int = 0) -> str:
    """The first error after byte `start` of a log (later ones follow from it), else its last line; '' without one."""
    try:
        lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        found = ERROR.search(line)
        if found and not CHATTER.search(line):
            return line[found.start() :][:MOST]
    return next((line.strip()[:MOST] for line in reversed(lines) if line.strip()), "")
