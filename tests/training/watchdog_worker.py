"""Run by test_watchdog.py on each of two ranks: `watchdog_worker.py SIGNAL VICTIM`. The victim takes the signal itself
before its first heartbeat; the other waits for it in a collective."""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from afa_llm.endings import end_process
from afa_llm.training.distributed import World
from afa_llm.training.watchdog import Watchdog


def main() -> None:
    number, victim, rank = signal.Signals[sys.argv[1]], int(sys.argv[2]), int(os.environ["RANK"])
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    world = World(rank, 2, torch.device("cpu"))
    watchdog = Watchdog(world, silence_seconds=3, standstill_seconds=60)
    watchdog.start()
    if rank == victim:
        os.kill(os.getpid(), number)
    try:
        world.wait()
    except RuntimeError:
        culprit = watchdog.culprit(10)
        print(culprit, file=sys.stderr, flush=True)
        end_process(culprit.exit_code if culprit else 1)


main()
