"""`afa train` on a tiny decoder: the files of a run, the same training in every layout, an exact resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from small_run import SMALL, adapter, metrics, timeless

from afa_llm.training.durable_files import digest_of


def test_a_run_leaves_its_files(afa: Callable, tiny_model: Path, tmp_path: Path) -> None:
    done = afa("train", f"model.path={tiny_model}", "run.name=one", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "planted_test: accuracy" in done.stdout
    folder = tmp_path / "runs" / "one"
    for name in ("config.yaml", "metrics.jsonl", "results.json", "report.html", "adapter/adapter_config.json"):
        assert (folder / name).stat().st_size > 0
    results = json.loads((folder / "results.json").read_text())
    assert results["headline"][0]["before"]["count"] == 12
    assert results["training"]["steps"] == 6
    assert len(metrics(folder)) == 6
    answers = sorted((folder / "items").glob("answers_*.jsonl"))
    assert [len(path.read_text().splitlines()) for path in answers] == [12, 12]
    assert len((folder / "items" / "focus_planted_test.jsonl").read_text().splitlines()) == 4
    assert any(tensor.abs().sum() > 0 for name, tensor in adapter(folder).items() if "lora_B" in name)

    again = afa("train", f"model.path={tiny_model}", "run.name=one", *SMALL)
    assert again.returncode == 2
    assert "run.overwrite=true" in again.stderr and "Traceback" not in again.stderr

    shown = afa("inspect", "A revolting soup, on Friday.", "--run", str(folder))
    assert shown.returncode == 0, shown.stderr
    assert "base" in shown.stdout and "tuned" in shown.stdout and "revolting" in shown.stdout

    layers = afa("layers", f"model.path={tiny_model}", *SMALL, "--reviews", "6", "--adapter", str(folder / "adapter"))
    assert layers.returncode == 0, layers.stderr
    assert "6 reviews" in layers.stdout and "AUPRC" in layers.stdout
    choice = layers.stdout.splitlines()[-1]
    assert choice.startswith("attention.layers=[")
    assert afa("config", choice).returncode == 0
    few = afa("layers", "--reviews", "1")
    assert few.returncode == 2 and "a whole number from 2 up" in few.stderr

    measured = afa("evaluate", f"model.path={tiny_model}", "run.name=two", *SMALL, "--adapter", str(folder / "adapter"))
    assert measured.returncode == 0, measured.stderr
    other = json.loads((tmp_path / "runs" / "two" / "results.json").read_text())
    assert other["scores"][0]["after"]["accuracy"] == results["scores"][0]["after"]["accuracy"]
    assert other["focus"] == results["focus"]


@pytest.mark.parametrize(
    ("quantization", "stage"), [("nf4", 2), pytest.param("nf4", 3, marks=pytest.mark.slow), ("none", 0)]
)
def test_two_ranks_train_as_one(afa: Callable, tiny_model: Path, tmp_path: Path, quantization: str, stage: int) -> None:
    """Whole batches on one rank against accumulation on two, by the real launcher: the same losses and weights."""
    same = [f"model.path={tiny_model}", f"model.quantization={quantization}", *SMALL]
    alone = afa("train", *same, "run.name=alone")
    assert alone.returncode == 0, alone.stderr
    parts = ["training.engine=deepspeed", f"training.zero_stage={stage}", "training.micro_batch_size=2"]
    both = afa("train", *same, *parts, "run.name=both", ranks=2)
    assert both.returncode == 0, both.stdout + both.stderr
    one, two = (metrics(tmp_path / "runs" / name) for name in ("alone", "both"))
    for row, other in zip(one, two, strict=True):
        for name in ("task_loss", "reward", "adversary_loss", "grad_norm", "focus_entropy"):
            # Worst seen 2e-5 (the reward): float32 sums in another order, through Adam.
            assert other[name] == pytest.approx(row[name], rel=1e-3, abs=1e-4), (row["step"], name)
    first, second = (adapter(tmp_path / "runs" / name) for name in ("alone", "both"))
    moved = max(float(t.abs().max()) for name, t in first.items() if "lora_B" in name)
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 0.05 * moved


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_two_ranks_read_the_layers_that_afa_layers_names(
    afa: Callable, deep_model: Path, tmp_path: Path, stage: int
) -> None:
    """Under ZeRO-3 every pass is one of all ranks. A resumed run does not choose again."""
    same = [f"model.path={deep_model}", *SMALL, "model.quantization=none", "attention.layers=auto"]
    named = afa("layers", *same, "--reviews", "40")
    assert named.returncode == 0, named.stderr
    layers = yaml.safe_load(named.stdout.splitlines()[-1].removeprefix("attention.layers="))
    assert layers != list(range(12))
    parts = [
        "training.engine=deepspeed",
        f"training.zero_stage={stage}",
        "training.checkpoint_every=4",
        "run.name=both",
    ]
    both = afa("train", *same, *parts, ranks=2)
    assert both.returncode == 0, both.stdout + both.stderr
    folder = tmp_path / "runs" / "both"
    assert yaml.safe_load((folder / "config.yaml").read_text())["attention"]["layers"] == layers
    whole = metrics(folder)
    for gone in ("adapter", "checkpoints/step_000006"):
        shutil.rmtree(folder / gone)
    resumed = afa("train", *same, *parts, "run.resume=true", ranks=2)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "attention.layers = " not in resumed.stdout + resumed.stderr
    assert [timeless(row) for row in metrics(folder)] == [timeless(row) for row in whole]

    shown = afa("inspect", "A revolting soup, on Friday.", "--run", str(folder))
    assert shown.returncode == 0 and "attention.layers" not in shown.stderr, shown.stderr


def test_resume_ends_bit_equal(afa: Callable, tiny_model: Path, tmp_path: Path) -> None:
    common = [f"model.path={tiny_model}", *SMALL, "training.checkpoint_every=2", "training.keep_checkpoints=9"]
    whole = afa("train", *common, "run.name=whole")
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "runs" / "whole"
    cut = tmp_path / "runs" / "cut"
    shutil.copytree(folder, cut)
    for gone in ("adapter", "checkpoints/step_000004", "checkpoints/step_000006"):
        shutil.rmtree(cut / gone)
    checkpoint = cut / "checkpoints" / "step_000002"  # as if the first two steps had taken an hour
    state, manifest = (json.loads((checkpoint / name).read_text()) for name in ("state.json", "manifest.json"))
    (checkpoint / "state.json").write_text(json.dumps(state | {"seconds": 3600.0}))
    manifest["files"]["state.json"] = digest_of(checkpoint / "state.json")
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    resumed = afa("train", *common, "run.name=cut", "run.resume=true")
    assert resumed.returncode == 0, resumed.stderr
    told = json.loads((cut / "results.json").read_text())
    assert min(told["run"]["seconds"]["training"], told["training"]["seconds"]) > 3600
    first, second = adapter(folder), adapter(cut)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for row, other in zip(metrics(folder), metrics(cut), strict=True):
        assert timeless(row) == timeless(other)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_two_ranks_then_one_then_two(afa: Callable, tiny_model: Path, tmp_path: Path, stage: int) -> None:
    """The number of ranks changes twice on the way; reviews, masks and losses stay those of the unbroken run."""
    deep = ["training.engine=deepspeed", f"training.zero_stage={stage}", "training.micro_batch_size=3"]
    common = [f"model.path={tiny_model}", *SMALL, *deep, "training.checkpoint_every=2", "training.keep_checkpoints=9"]
    whole = afa("train", *common, "run.name=whole", ranks=2)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    folder, cut = (tmp_path / "runs" / name for name in ("whole", "cut"))
    shutil.copytree(folder, cut)
    for ranks, gone in ((1, (4, 6)), (2, (6,))):
        for step in gone:
            shutil.rmtree(cut / "checkpoints" / f"step_{step:06d}")
        resumed = afa("train", *common, "run.name=cut", "run.resume=true", ranks=ranks)
        assert resumed.returncode == 0, resumed.stdout + resumed.stderr
        for row, other in zip(metrics(folder), metrics(cut), strict=True):
            assert row.keys() == other.keys()
            # There is no AUROC before the first held-out review came by.
            for name in row.keys() & {"task_loss", "reward", "adversary_loss", "grad_norm", "adversary_auroc"}:
                assert other[name] == pytest.approx(row[name], rel=1e-3, abs=1e-4), (ranks, row["step"], name)


def test_another_seed_gives_another_adapter(afa: Callable, tiny_model: Path, tmp_path: Path) -> None:
    short = [f"model.path={tiny_model}", *SMALL, "training.max_steps=2", "evaluation.focus_samples=0"]
    for seed in (0, 1):
        assert afa("train", *short, f"run.name=s{seed}", f"run.seed={seed}").returncode == 0
    first, second = (adapter(tmp_path / "runs" / f"s{seed}") for seed in (0, 1))
    assert any((first[name] != second[name]).any() for name in first)
