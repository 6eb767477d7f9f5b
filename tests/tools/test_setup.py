"""tools/setup.sh, with a Python that only pretends to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / "tools" / "setup.sh"
PRETENDS = r"""#!/bin/sh
if [ "$2" = venv ]; then
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    printf '#!%s\nimport sys\nprint(sys.argv[1:])\n' "$3/bin/real" >"$3/bin/deepspeed"
    chmod +x "$3/bin/deepspeed"
fi
"""


@pytest.mark.parametrize("name", ["plain", "with a space"])
def test_the_launcher_starts_from_any_folder(name: str, tmp_path: Path) -> None:
    """In a folder with a space `deepspeed` was there and could not be executed."""
    python = tmp_path / "python"
    python.write_text(PRETENDS)
    python.chmod(0o755)
    folder = tmp_path / name
    subprocess.run(["bash", SETUP, folder], env={**os.environ, "PYTHON": str(python)}, check=True)
    (folder / "bin" / "real").symlink_to(sys.executable)
    done = subprocess.run([folder / "bin" / "deepspeed", "a b", "c"], capture_output=True, text=True, check=True)
    assert done.stdout == "['a b', 'c']\n"
