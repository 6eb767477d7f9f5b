"""Run by test_stops.py on each of two ranks: `stop_worker.py MODEL FOLDER`. The validation after the second step, or
the wait for an engine in the third one, is interrupted by a stop that one rank is asked for, or the engine fails for
good there; the run is resumed, and compared with an unbroken one. Prints what happened for each place and rank.

The engine is one that rank 0 holds, and knows answers by a formula; it hangs where the stop is to come.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from small_training import everything, small_trainer
from stopping import ASKING, VALIDATED, differing, stop_in

from afa_llm.endings import end_process
from afa_llm.errors import AfaError, EnginesFailedError, StoppedError
from afa_llm.rollouts.label_scoring import ScoreRequest, Scores
from afa_llm.rollouts.replica import Beat
from afa_llm.rollouts.vllm_server import ServerGenerator
from afa_llm.training.distributed import World
from afa_llm.training.looking import Look
from afa_llm.training.trainer import Trainer
from afa_llm.training.watchdog import Watchdog

ROUND = 3  # that of the third step, after two


class Formula:
    """Engines of rank 0. One question is never answered, or is one too many."""

    def __init__(self, hang_at: int = 0, fail_at: int = 0) -> None:
        self.hang_at, self.fail_at, self.asked = hang_at, fail_at, 0

    def score(self, requests: Sequence[ScoreRequest], adapter: str, beat: Beat) -> list[Scores]:
        self.asked += 1
        if self.asked == self.fail_at:
            raise AfaError("rollouts.restarts = 0: the engine failed once more")
        while self.asked == self.hang_at:
            beat()
            time.sleep(0.05)
        return [
            {token: -((sum(request.token_ids) * 31 + token * 17) % 97) / 20 for token in request.scored_ids}
            for request in requests
        ]

    def rest(self) -> None: ...


def make(model: Path, folder: Path, world: World, where: str, *, stops: bool, victim: bool, resume: bool) -> Trainer:
    settings = VALIDATED if where == "validation" else ASKING
    more = ["training.max_steps=4", f"run.resume={resume}".lower()]
    trainer = small_trainer(model, folder, *settings, *more, world=world)
    _sum_gradients(trainer)
    if where == "validation":
        if stops and victim:
            stop_in(trainer, 1, 1)
        return trainer
    fault = {} if not stops else {"fail_at": ROUND} if where == "failure" else {"hang_at": ROUND}
    fleet: Any = Formula(**fault) if world.leads else None
    generator = ServerGenerator(fleet, world, [0])
    trainer.round.looker.generator = generator
    trainer.deliver = lambda version: setattr(generator, "adapter_version", version) or {}
    if stops and victim and where == "engine":
        _ask_to_stop(trainer)
    return trainer


def _ask_to_stop(trainer: Trainer) -> None:
    collect, waits = trainer.round.looker.collect, []

    def stopping(look: Look) -> None:
        waits.append(look)
        if len(waits) == ROUND:
            trainer.world.stop.ask("SIGTERM")
        collect(look)

    trainer.round.looker.collect = stopping  # type: ignore[method-assign]


def _sum_gradients(trainer: Trainer) -> None:
    """The plain engine is for one process; both ranks hold the same weights, and step alike with summed gradients."""
    step, weights = trainer.engine.step, trainer.engine.names.values()  # type: ignore[attr-defined]

    def both(learning_rate: float) -> Any:
        trainer.world.sum_tensors([p.grad for p in weights])
        return step(learning_rate)

    trainer.engine.step = both  # type: ignore[method-assign]


def run_and_resume(model: Path, folder: Path, rank: int, where: str, victim: int) -> dict[str, Any]:
    """A run that is stopped and resumed beside one that is not."""
    parts: dict[str, Any] = {"where": where, "victim": rank == victim}
    for name in ("whole", "broken"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    whole = make(model, folder / "whole", _world(rank), stops=False, resume=False, **parts)
    whole.run()
    broken = make(model, folder / "broken", _world(rank), stops=True, resume=False, **parts)
    watchdog = Watchdog(broken.world, silence_seconds=60, standstill_seconds=100)  # it carries a request to all ranks
    watchdog.start()
    said = ""
    try:
        broken.run()
    except (StoppedError, EnginesFailedError) as stopped:
        said = str(stopped)
    broken.world.wait()
    watchdog.close()
    left = sorted(path.name for path in (folder / "broken" / "checkpoints").glob("step_*"))
    broken.world.wait()
    again = make(model, folder / "broken", _world(rank), stops=False, resume=True, **parts)
    resumed = again.run().resumed_from
    return {
        "said": said,
        "checkpoints": left,
        "resumed": resumed,
        "differing": differing(everything(whole), everything(again)),
    }


def _world(rank: int) -> World:
    return World(rank, 2, torch.device("cpu"))


def main() -> None:
    model, folder, rank = Path(sys.argv[1]), Path(sys.argv[2]), int(os.environ["RANK"])
    dist.init_process_group("gloo")
    cases = [(where, victim) for where in ("validation", "engine") for victim in (0, 1)] + [("failure", 0)]
    found = {
        f"{where} {victim}": run_and_resume(model, folder / f"{where} {victim}", rank, where, victim)
        for where, victim in cases
    }
    print(json.dumps(found), flush=True)
    _world(rank).wait()
    end_process(0)


main()
