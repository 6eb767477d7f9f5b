"""The real command in real processes: `afa` alone, or under the `deepspeed` launcher with gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from afa_llm.training.distributed import free_port

Finished = subprocess.CompletedProcess[str]


@pytest.fixture
def afa(tmp_path: Path) -> Callable[..., Finished]:
    """Runs `afa ARGUMENTS` in a folder of its own. ranks=N starts it by the deepspeed launcher."""

    def run(*arguments: str, ranks: int = 0, timeout: int = 300) -> Finished:
        command = [sys.executable, "-m", "afa_llm", *arguments]
        environment = os.environ | {"COLUMNS": "120", "NO_COLOR": "1"}
        if ranks:
            environment["DS_ACCELERATOR"] = "cpu"
            launcher = str(Path(sys.executable).with_name("deepspeed"))
            meet = ["--num_accelerators", str(ranks), "--master_port", str(free_port())]
            command = [launcher, *meet, "--module", "afa_llm", *arguments]
        # A clean PYTHONPATH entry: the tests run from the checkout, the command from elsewhere.
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run
