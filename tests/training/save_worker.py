"""Run by test_checkpoint_kills.py: `save_worker.py FOLDER random|boundaries`. Forks a saver, kills it, looks.

Prints one JSON object. A child is forked from a process that has torch loaded already, so fifty kills take seconds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from afa_llm.training.checkpoint import newest_checkpoint, save_checkpoint
from afa_llm.training.distributed import World

ALONE = World(0, 1, torch.device("cpu"))


def save(folder: Path, step: int) -> None:
    save_checkpoint(
        folder,
        ALONE,
        state={"step": step, "held_out": []},
        engine={"a|weight": torch.full((50_000,), float(step))},
        adversary={"w": torch.full((1000,), float(step))},
        rank_state={"random": torch.get_rng_state()},
        keep=1,
    )


def check(folder: Path, low: int, high: int) -> str:
    """Empty where the newest checkpoint is whole and of a step in [low, high]."""
    found = newest_checkpoint(folder, ALONE)
    if found is None:
        return "no checkpoint"
    step = found.state["step"]
    whole = bool((found.engine["a|weight"] == step).all()) and found.adversary is not None
    return "" if low <= step <= high and whole else f"step {step}, whole {whole}, wanted {low} to {high}"


def in_child(work: Callable[[], None], kill_after: float | None = None) -> bool:
    """Run in a fork; True where it ended by itself."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status)


def random_moments(folder: Path, times: int) -> dict[str, Any]:
    rng, faults, saved = random.Random(0), [], 0
    save(folder, 1)
    for _ in range(times):
        first = _newest(folder)

        def work(first: int = first) -> None:
            for step in range(first + 1, first + 1000):
                save(folder, step)

        assert not in_child(work, kill_after=rng.uniform(0, 0.15))
        fault = check(folder, first, first + 1000)
        faults += [fault] if fault else []
        saved += _newest(folder) - first
    return {"faults": faults, "saved": saved}


def boundaries(folder: Path) -> dict[str, Any]:
    """A kill right before each call that changes the disk, one after the other, until a save gets through."""
    faults, number = [], 0
    while True:
        number += 1
        shutil.rmtree(folder, ignore_errors=True)
        save(folder, 1)

        def work(number: int = number) -> None:
            _kill_before(number)
            save(folder, 2)

        through = in_child(work)
        fault = check(folder, 1, 2)
        if not fault:
            save(folder, 3)  # what the kill left does not disturb the next save
            fault = check(folder, 3, 3)
            left = sorted(path.name for path in folder.iterdir())
            fault = fault or ("" if left == ["step_000003"] else f"left: {left}")
        faults += [f"boundary {number}: {fault}"] if fault else []
        if through:
            return {"faults": faults, "boundaries": number - 1}


def _kill_before(number: int) -> None:
    seen = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def replacement(*arguments: Any, **named: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return replacement

    for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))


def _newest(folder: Path) -> int:
    found = newest_checkpoint(folder, ALONE)
    assert found is not None
    return int(found.state["step"])


if __name__ == "__main__":
    where = Path(sys.argv[1])
    print(json.dumps(boundaries(where) if sys.argv[2] == "boundaries" else random_moments(where, 50)))
