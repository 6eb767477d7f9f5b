"""One process of the trial all-reduce: `python -m afa_llm.doctor.all_reduce BACKEND BYTES LIMIT_S`.

RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT come from the environment, as under a launcher. Each stage it
reaches is a line of JSON on stdout, so that a process that hangs has said where.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from datetime import timedelta

WARM_UP, TIMED = 2, 5


def main() -> None:
    backend, size, limit_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    # Whoever started this may be gone: it ends by itself, even while it hangs in a C++ call.
    watchdog = threading.Timer(limit_s, os._exit, args=(124,))
    watchdog.daemon = True
    watchdog.start()
    _tell(stage="started")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=timedelta(seconds=limit_s))
    _tell(stage="joined")
    rank, world = dist.get_rank(), dist.get_world_size()
    seconds = []
    correct = True
    for _ in range(WARM_UP + TIMED):
        numbers = torch.full((size // 4,), float(rank + 1), device=device)
        dist.barrier()
        if backend == "nccl":
            torch.cuda.synchronize()
        began = time.perf_counter()
        dist.all_reduce(numbers)
        if backend == "nccl":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        correct &= bool((numbers == world * (world + 1) / 2).all())
    _tell(stage="reduced", seconds=statistics.median(seconds[WARM_UP:]), correct=correct)
    dist.destroy_process_group()


def _tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
