"""Engines alone: DeepSpeed on two real ranks against plain arithmetic on one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from afa_llm.config_running import Training
from afa_llm.training.distributed import free_port
from afa_llm.training.engine import PlainEngine


def plain_steps(count: int) -> tuple[list[float], torch.Tensor, list[float]]:
    """Gradient norms and the first weight after `count` steps on all data in one process; then norm and last bias of a
    step of which half the data goes through the last layer alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
        engine = PlainEngine(model, Training(learning_rate=0.05, max_grad_norm=1e9))
        data = torch.randn(8, 6)
    norms = []
    for _ in range(count):
        engine.backward(model(data).square().sum() / len(data))
        norms.append(engine.step(0.05).grad_norm)
    weight = model[0].weight.detach().clone()
    engine.backward(model(data[:4]).square().sum() + model[2](torch.ones(4, 5)).square().sum())
    return norms, weight, [engine.step(0.05).grad_norm, model[2].bias.item()]


@pytest.mark.parametrize("stage", [0, 2, 3, pytest.param(1, marks=pytest.mark.slow)])
def test_two_ranks_step_as_one_and_skip_together(tmp_path: Path, stage: int) -> None:
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    worker, result = Path(__file__).with_name("engine_worker.py"), tmp_path / "result.json"
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
    meet = ["--num_accelerators", "2", "--master_port", str(free_port())]
    command = [launcher, *meet, str(worker), str(stage), str(result)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(result.read_text())
    norms, weight, missing = plain_steps(3)
    assert [found[name][0] for name in ("first", "second", "third")] == pytest.approx(norms, rel=1e-5)
    assert found["poisoned"] == [False, 2]
    assert found["unchanged"] and found["same"] and found["fresh"]
    assert found["third again"] == found["third"]
    assert found.get("missing", missing) == pytest.approx(missing, rel=1e-5)  # sums of unequal length ended the job
    assert found["steps"] == 3
    assert found["largest"] == [10.0, 11.0]
    assert torch.allclose(torch.tensor(found["weight"]), weight, atol=1e-6)


def test_plain_engine_skips_what_is_not_finite() -> None:
    model = torch.nn.Linear(3, 1)
    engine = PlainEngine(model, Training())
    before = engine.state()
    engine.backward(model(torch.ones(2, 3)).sum() * float("nan"))
    outcome = engine.step(0.1)
    assert not outcome.applied
    assert all(torch.equal(before[name], value) for name, value in engine.state().items())
    assert all(p.grad is None for p in model.parameters())


def test_weights_of_a_checkpoint_that_nobody_trains_are_not_dropped() -> None:
    engine = PlainEngine(torch.nn.Linear(2, 2), Training())
    state = engine.state()
    engine.load_state(state)
    del engine.names["bias"]
    with pytest.raises(KeyError, match="bias is in it and not trained now, 1 weights in all"):
        engine.load_state(state)


def test_a_weight_of_rank_one_is_not_repeated_to_another_rank() -> None:
    """A copy takes [1, 4] for every row of [8, 4], and the next step met moments of another shape."""
    state = PlainEngine(torch.nn.Linear(4, 1, bias=False), Training()).state()
    engine = PlainEngine(torch.nn.Linear(4, 8, bias=False), Training())
    before = engine.state()
    with pytest.raises(ValueError, match=r"weight has shape \[1, 4\] in it, now \[8, 4\]"):
        engine.load_state(state)
    assert all(torch.equal(before[name], value) for name, value in engine.state().items())


def test_clipping_bounds_the_step_not_the_reported_norm() -> None:
    model = torch.nn.Linear(3, 1, bias=False)
    engine = PlainEngine(model, Training(max_grad_norm=0.5))
    engine.backward(model(torch.full((1, 3), 10.0)).sum())
    assert engine.step(0.0).grad_norm == pytest.approx(10 * 3**0.5)
