"""Two real ranks, one of which is lost before its first heartbeat. Later losses: tests/e2e/test_faults.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from afa_llm.errors import PEER_LOST
from afa_llm.training.distributed import free_port

WORKER = Path(__file__).with_name("watchdog_worker.py")


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(
    ("number", "says"), [("SIGKILL", "has ended or cannot be reached"), ("SIGSTOP", "has not been heard of for 3 s")]
)
def test_a_rank_lost_before_its_first_heartbeat_is_named(victim: int, number: str, says: str) -> None:
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    environment = os.environ | meet | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(WORKER), number, str(victim)]
    ranks = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    try:
        told = ranks[1 - victim].communicate(timeout=60)[1]
        assert ranks[1 - victim].returncode == PEER_LOST, told
        assert f"rank {victim} (host" in told and says in told, told
        # A stopped rank is killed by the one that noticed it: it would outlive the job.
        assert ranks[victim].wait(timeout=10) == -signal.SIGKILL
    finally:
        for process in ranks:
            process.kill()
            process.wait()
