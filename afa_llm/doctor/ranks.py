"""Starts a node's processes of the trial all-reduce and brings back what they said; none outlives its time limit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pydantic import BaseModel

from afa_llm.doctor.findings import RankReport

GRACE_S = 5.0
"""Between the processes' own limit and the moment they are killed."""


class Trip(BaseModel):
    """What this node's share of the trial is."""

    backend: str
    bytes: int
    world: int
    first_rank: int
    count: int
    """Processes on this node."""
    address: str
    port: int
    """0: any free one of the loopback address, where all ranks are on this machine."""
    limit_s: float


def run_ranks(trip: Trip) -> list[RankReport]:
    """Run this node's ranks to their end or their limit."""
    command = [sys.executable, "-m", "afa_llm.doctor.all_reduce", trip.backend, str(trip.bytes), str(trip.limit_s)]
    give_up = time.monotonic() + trip.limit_s + GRACE_S
    trip = trip.model_copy(update={"port": trip.port or _free_port()})
    with tempfile.TemporaryDirectory(prefix="afa-doctor-") as folder:
        places = [Path(folder, str(k)) for k in range(trip.count)]
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for k, place in enumerate(places):
                with place.with_suffix(".out").open("wb") as said, place.with_suffix(".err").open("wb") as wrong:
                    processes.append(
                        subprocess.Popen(
                            command, env=_environment(trip, k), stdin=subprocess.DEVNULL, stdout=said, stderr=wrong
                        )
                    )
            for process in processes:
                _wait(process, give_up)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        return [
            _report(trip.first_rank + k, place, process.returncode, trip.limit_s)
            for k, (place, process) in enumerate(zip(places, processes, strict=True))
        ]


def _environment(trip: Trip, local_rank: int) -> dict[str, str]:
    return os.environ | {
        "RANK": str(trip.first_rank + local_rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(trip.world),
        "MASTER_ADDR": trip.address,
        "MASTER_PORT": str(trip.port),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], give_up: float) -> None:
    try:
        process.wait(max(0.0, give_up - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()


def _report(rank: int, place: Path, code: int, limit_s: float) -> RankReport:
    said: dict[str, object] = {"stage": "none"}
    for line in place.with_suffix(".out").read_text(errors="replace").splitlines():
        if line.startswith("{"):
            said |= json.loads(line)
    error = None
    if code == 124 or code == -9:
        error = f"no end within {limit_s:.0f} s"
    elif code:
        error = _last_line(place.with_suffix(".err").read_text(errors="replace")) or f"exit code {code}"
    return RankReport.model_validate(said | {"rank": rank, "error": error})


def _last_line(text: str) -> str:
    """The line that names the error: the last one of a traceback, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line.split(":")[0]]
    return ((named or lines or [""])[-1])[:300]
