"""Run by test_engines.py on every rank: `engine_worker.py STAGE RESULT`. A NaN on one rank, a state that comes back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from afa_llm.config_running import Training
from afa_llm.endings import end_process
from afa_llm.training import distributed
from afa_llm.training.deepspeed_engine import DeepSpeedEngine
from afa_llm.training.distributed import World


def main() -> None:
    arguments = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
    stage, result = int(arguments[0]), Path(arguments[1])
    world = distributed.start("deepspeed", 2)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    settings = Training(engine="deepspeed", zero_stage=stage, learning_rate=0.05, max_grad_norm=1e9)
    engine = DeepSpeedEngine(model, settings, world)
    data = torch.randn(8, 6)

    def step(poisoned: bool = False) -> tuple[float, bool]:
        loss = engine.forward(data[world.rank :: world.size]).square().sum() / len(data)
        engine.backward(loss * float("nan") if poisoned and world.rank == 1 else loss)
        outcome = engine.step(0.05)
        return outcome.grad_norm, outcome.applied

    fresh = engine.state()  # before any step, as a resumed process finds it
    engine.load_state(fresh)
    unstepped = all(not value.any() for name, value in fresh.items() if not name.endswith("|weight"))
    found: dict[str, object] = {"fresh": unstepped, "first": step(), "second": step()}
    kept = engine.state()
    found["poisoned"] = [step(poisoned=True)[1], sum(world.gather(1))]
    unchanged = all(torch.equal(kept[name], value) for name, value in engine.state().items())
    found["unchanged"] = all(world.gather(unchanged))
    found["third"] = step()
    third = engine.state()
    engine.load_state(kept)
    found["third again"] = step()
    again = engine.state()
    found["same"] = all(torch.equal(third[name], again[name]) for name in third)
    if stage == 0:  # above it DeepSpeed sums in the order in which gradients come
        found["missing"] = step_without_some(engine, model, data, world)
    found["weight"] = third["0.weight|weight"].tolist()
    found["steps"] = float(third["0.weight|step"])
    found["largest"] = [world.largest(value) for value in (10.0 - world.rank, 10.0 + world.rank)]
    if world.leads:
        result.write_text(json.dumps(found))
    world.wait()
    distributed.stop()
    end_process(0)


def step_without_some(engine: DeepSpeedEngine, model: torch.nn.Module, data: torch.Tensor, world: World) -> list[float]:
    """Nothing of rank 1's share comes through the first layer; the norm, and the last layer's bias after the step."""
    value = engine.forward(data[:4]) if world.leads else model[2](torch.ones(4, 5))
    engine.backward(value.square().sum())
    return [engine.step(0.05).grad_norm, model[2].bias.item()]


main()
