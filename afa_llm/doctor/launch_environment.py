"""Which environment the ranks will have: what the deepspeed launcher carries over ssh, and `.deepspeed_env`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from afa_llm.errors import AfaError

CARRIED = ("MLFLOW", "PYTHON", "MV2", "UCX", "NCCL")
"""Beginnings of names that the launcher exports on every node (deepspeed 0.19: launcher/runner.py, and its CUDA part).
All else stays behind unless `.deepspeed_env` names it."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def launch_environment(environment: Mapping[str, str], folders: Sequence[Path]) -> dict[str, str]:
    """Variables that a remote rank gets besides those of its login shell.

    folders: where `.deepspeed_env` (or what DS_ENV_FILE names) is looked for, a later one wins.
    Raises AfaError with file and line where one is no NAME=VALUE: the launcher knows no blank lines and no comments.
    """
    found = {name: value for name, value in environment.items() if name.startswith(CARRIED) and _NAME.fullmatch(name)}
    for folder in folders:
        file = folder / environment.get("DS_ENV_FILE", ".deepspeed_env")
        if file.is_file():
            found |= _read(file)
    return found


def launcher_folders() -> list[Path]:
    return [Path(os.path.expanduser("~")), Path()]


def _read(file: Path) -> dict[str, str]:
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        name, equals, value = line.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise AfaError(
                f"{file} line {number}: {line!r} is no NAME=VALUE; take it out: the deepspeed launcher puts every "
                "line into a shell's export, and stops or goes astray at blank lines and comments"
            )
        found[name] = value
    return found
