"""`afa train` on a GPU: the numbers of the CPU, every engine and number type, resume. `python -m pytest -m gpu`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import SMALL, adapter, metrics

from afa_llm.training.distributed import free_port

pytestmark = pytest.mark.gpu
ROOT = Path(__file__).parents[2]


def train(folder: Path, name: str, *settings: str, launched: bool = False, gpu: bool = True) -> list[dict]:
    """Metrics of a run; by the launcher as one rank of one GPU."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if not gpu:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    program = [sys.executable, "-m"]
    if launched:  # the launcher of this interpreter, wherever its script may lie
        program += [
            "deepspeed.launcher.runner",
            "--num_accelerators",
            "1",
            "--master_port",
            str(free_port()),
            "--module",
        ]
    words = [*program, "afa_llm", "train", *SMALL, *settings, f"run.name={name}"]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return metrics(folder / "runs" / name)


def test_a_gpu_trains_as_the_cpu_does(tiny_model: Path, tmp_path: Path) -> None:
    """float32: the same reviews, masks and losses; kernels sum in another order."""
    same = [f"model.path={tiny_model}", "model.quantization=none"]
    here, there = train(tmp_path, "gpu", *same), train(tmp_path, "cpu", *same, gpu=False)
    for row, other in zip(here, there, strict=True):
        for name in ("task_loss", "reward", "adversary_loss", "grad_norm", "focus_entropy"):
            assert row[name] == pytest.approx(other[name], rel=2e-3, abs=2e-4), (row["step"], name)
    one, two = (json.loads((tmp_path / "runs" / name / "results.json").read_text()) for name in ("gpu", "cpu"))
    for first, second in zip(one["scores"], two["scores"], strict=True):
        assert first["before"]["brier"] == pytest.approx(second["before"]["brier"], abs=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.parametrize("stage", [None, 0, 1, 2, 3])
def test_every_engine_trains_every_base(
    tiny_model: Path, tmp_path: Path, stage: int | None, quantization: str, dtype: str
) -> None:
    settings = [f"model.path={tiny_model}", f"model.quantization={quantization}", f"model.dtype={dtype}"]
    if stage is not None:
        settings += ["training.engine=deepspeed", f"training.zero_stage={stage}"]
    rows = train(tmp_path, "one", *settings, launched=stage is not None)
    assert len(rows) == 6 and all(row["skipped_steps"] == 0 for row in rows)
    assert rows[-1]["task_loss"] < rows[0]["task_loss"]
    assert 0 < rows[-1]["peak_memory_gib"] < 2
    assert any(
        tensor.abs().sum() > 0 for name, tensor in adapter(tmp_path / "runs" / "one").items() if "lora_B" in name
    )


@pytest.mark.parametrize("offload", ["zero2_offload", "zero3_offload_all"])
def test_offload(tiny_model: Path, tmp_path: Path, offload: str) -> None:
    file = ROOT / "configs" / "deepspeed" / f"{offload}.json"
    settings = ["training.engine=deepspeed", f"training.zero_stage={offload[4]}", f"training.deepspeed_file={file}"]
    rows = train(tmp_path, "one", f"model.path={tiny_model}", "model.quantization=nf4", *settings, launched=True)
    assert rows[-1]["task_loss"] < rows[0]["task_loss"]


@pytest.mark.parametrize("engine", ["plain", "deepspeed"])
def test_a_resumed_run_ends_like_an_unbroken_one(tiny_model: Path, tmp_path: Path, engine: str) -> None:
    settings = [f"model.path={tiny_model}", f"training.engine={engine}", "training.checkpoint_every=2"]
    settings += ["training.keep_checkpoints=9"]
    launched = engine == "deepspeed"
    whole = train(tmp_path, "whole", *settings, launched=launched)
    cut = tmp_path / "runs" / "cut"
    shutil.copytree(tmp_path / "runs" / "whole", cut)
    for gone in ("adapter", "checkpoints/step_000004", "checkpoints/step_000006"):
        shutil.rmtree(cut / gone)
    resumed = train(tmp_path, "cut", *settings, "run.resume=true", launched=launched)
    for row, other in zip(resumed, whole, strict=True):
        for name in ("task_loss", "reward", "adversary_loss", "grad_norm"):
            # A GPU adds gradients in any order: not bit for bit.
            assert row[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), (row["step"], name)
