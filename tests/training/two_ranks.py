"""Two real ranks over gloo, as processes of a script of these tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from afa_llm.training.distributed import free_port


def on_two_ranks(script: str, *arguments: str, seconds: float = 200) -> list[Any]:
    """What `script` prints on each rank in its last line, as JSON. Fails where a rank does, or waits for the other for
    longer than that."""
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    paths = os.pathsep.join(map(str, (Path(__file__).parents[2], Path(__file__).parents[1])))
    environment = os.environ | meet | {"PYTHONPATH": paths}
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    ranks = [
        subprocess.Popen(
            command, env=environment | {"RANK": rank}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    try:
        told = [process.communicate(timeout=seconds) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(error for _, error in told)
    return [json.loads(output.splitlines()[-1]) for output, _ in told]
