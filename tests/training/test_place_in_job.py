"""The launcher's variables: what belongs together, and what was left over or mistyped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from afa_llm.errors import AfaError
from afa_llm.training.distributed import place_in_job

MEETING = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


def test_places() -> None:
    assert place_in_job({}) == (1, 0, 0)
    assert place_in_job({"WORLD_SIZE": "1", "RANK": "0"}) == (1, 0, 0)
    assert place_in_job({"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", **MEETING}) == (8, 5, 1)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE = 'x': not a whole number from 1"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE = '': not a whole number from 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE = '0': not a whole number from 1"),
        ({"RANK": "-1"}, "RANK = '-1': not a whole number from 0"),
        ({"LOCAL_RANK": "first"}, "LOCAL_RANK = 'first'"),
        ({"RANK": "5"}, "RANK = 5: not below WORLD_SIZE = 1"),
        ({"WORLD_SIZE": "2", **MEETING}, "WORLD_SIZE = 2: RANK is not set beside it"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "WORLD_SIZE = 2: MASTER_ADDR is not set beside it"),
        ({"WORLD_SIZE": "2", "RANK": "1", **MEETING}, "WORLD_SIZE = 2: LOCAL_RANK is not set beside it"),
        (
            {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "x"},
            "MASTER_PORT = 'x'",
        ),
    ],
)
def test_variables_that_no_launcher_sets_so(environment: dict[str, str], message: str) -> None:
    with pytest.raises(AfaError, match=message):
        place_in_job(environment)


def test_a_port_that_another_job_has_is_told(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        ranks = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | ranks | {"DS_ACCELERATOR": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-m", "afa_llm", "train", "training.engine=deepspeed", f"run.output_dir={tmp_path}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 2, done.stderr
    assert f"MASTER_PORT = {port}: the port is taken here" in done.stderr and "Traceback" not in done.stderr
