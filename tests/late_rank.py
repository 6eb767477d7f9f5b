"""Run by test_endings.py on each of two ranks: `late_rank.py ENDING FLAG`. Rank 1 ends while its reductions come in.

FLAG is made by rank 1's exit handlers: rank 0 answers from then on, so that rank 1's communication threads free tensors
while its interpreter ends. A group that something still holds, as DeepSpeed does, keeps those threads alive.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from afa_llm.endings import end_process

REDUCTIONS = 200


class Witness:
    """Makes a folder when the interpreter is torn down with this in it."""

    def __init__(self, folder: Path) -> None:
        self.testify = partial(os.mkdir, str(folder))

    def __del__(self) -> None:
        self.testify()


def main() -> None:
    ending, flag = {"end_process": end_process, "sys.exit": sys.exit}[sys.argv[1]], Path(sys.argv[2])
    dist.init_process_group("gloo")
    atexit.held_group = dist.group.WORLD  # type: ignore[attr-defined]
    tensors = [torch.ones(1) for _ in range(REDUCTIONS)]
    dist.barrier()
    if os.environ["RANK"] == "0":
        while not flag.exists():
            time.sleep(0.0002)
        for tensor in tensors:
            dist.all_reduce(tensor)
            time.sleep(0.0005)
        time.sleep(2)  # a connection that breaks would wake the other rank's threads as well
    else:
        for tensor in tensors:
            dist.all_reduce(tensor, async_op=True)
        del tensors, tensor
        atexit.register(flag.touch)
        atexit.witness = Witness(flag.with_name("torn down"))  # type: ignore[attr-defined]
        print("done")  # not yet written out where standard output is a file or a pipe
    dist.destroy_process_group()
    ending(7)


main()
