"""SIGKILL inside a save, at every boundary and at random moments: there is always a whole checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("save_worker.py")


def worker(folder: Path, mode: str) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder), mode],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_kill_at_every_boundary(tmp_path: Path) -> None:
    found = worker(tmp_path / "checkpoints", "boundaries")
    assert found["faults"] == []
    assert found["boundaries"] >= 10  # files, folders, renames, removals: 15 when this was written


def test_fifty_kills_at_random_moments(tmp_path: Path) -> None:
    found = worker(tmp_path / "checkpoints", "random")
    assert found["faults"] == []
    assert found["saved"] > 0  # some saves got through, so kills fell inside saves and between them
