"""A real matrix in real processes: stopped, killed, continued; a failed cell does not stop the others."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from afa_llm.errors import STOPPED

STEPS = 60


def write_benchmark(folder: Path, tiny_model: Path) -> str:
    content = {
        "name": "small",
        "output_dir": "out",
        "reference": "ce",
        "seeds": [0],
        "base": {
            "settings": {
                "model": {"path": str(tiny_model), "quantization": "none"},
                "data": {
                    "train": {"path": "builtin:planted", "max_samples": 32},
                    "evaluation": [{"path": "builtin:planted", "split": "test", "max_samples": 12}],
                },
                "prompts": {"evaluation": ["review_sentiment"]},
                "evaluation": {"focus_samples": 6, "calibrations": ["none"], "leave_one_out_samples": 0},
                "training": {"reviews_per_step": 8, "epochs": 100, "max_steps": STEPS, "checkpoint_every": 0},
                "objective": {"policy_gradient_weight": 0},
            }
        },
        "data_sets": {"planted": {}},
        "arms": {
            "ce": {},
            "broken": {"settings": {"lora": {"target_modules": ["no_such_module"]}}},
            "few": {"kind": "prompted", "settings": {"prompts": {"demonstrations": 2}}},
        },
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return "small.yaml"


@pytest.mark.slow
def test_stopped_killed_and_continued(
    afa: Callable[..., object], start_job: Callable[..., object], tiny_model: Path, tmp_path: Path
) -> None:
    file = write_benchmark(tmp_path, tiny_model)
    place = tmp_path / "out" / "small"
    training = place / "planted" / "ce" / "seed0"

    def lines() -> int:
        metrics = training / "metrics.jsonl"
        return metrics.read_text().count("\n") if metrics.exists() else 0

    job = start_job("benchmark", file)
    job.wait_for(lambda: lines() >= 2, "two steps")
    job.process.send_signal(signal.SIGTERM)
    assert job.ends(120) == STOPPED, job.text()
    assert "planted/ce/seed0 stopped" in job.text()
    done = lines()
    assert 2 <= done < STEPS
    assert len(list((training / "checkpoints").glob("step_*"))) == 1

    job = start_job("benchmark", file)  # goes on, and is killed; its cell lives on
    job.wait_for(lambda: lines() > done, "another step")
    assert "planted/ce/seed0 running, resumed" in job.text()
    job.process.kill()
    job.ends(10)

    finished = afa("benchmark", file, timeout=400)
    assert finished.returncode == 1, finished.stderr
    starts = training.with_name("seed0.log").read_text().count("steps on 1 rank")
    assert starts == 2  # begun and resumed; while the cell of the killed benchmark lived it was not started again
    assert "planted/ce/seed0 done" in finished.stderr
    assert "planted/few/seed0 done" in finished.stderr
    failed = next(line for line in finished.stderr.splitlines() if "planted/broken/seed0 failed" in line)
    assert "exit code 2: afa train:" in failed and "no_such_module" in failed and "seed0.log" in failed
    results = json.loads((training / "results.json").read_text())
    assert results["training"]["resumed_from"] >= 2
    assert lines() == STEPS
    content = json.loads((place / "benchmark.json").read_text())
    assert [cell["finished"] for cell in content["cells"]] == [True, False, True]
    row = next(r for r in content["comparisons"] if (r["arm"], r["metric"]) == ("few", "accuracy"))
    assert row["p_value"] is None and row["mcnemar"][0]["seed"] == 0
    assert "2 of 3 cells" in (place / "report.html").read_text()

    again = afa("benchmark", file, "--only", "planted/ce", "--only", "*/few/*")
    assert again.returncode == 0, again.stderr
    changed = afa("benchmark", file, "base.settings.training.learning_rate=0.1")
    assert changed.returncode == 2
    assert "planted/ce/seed0: begun with other settings: training.learning_rate = 0.1 (was 0.0005)" in changed.stderr


def test_faults_end_before_anything_runs(afa: Callable[..., object], tiny_model: Path, tmp_path: Path) -> None:
    file = write_benchmark(tmp_path, tiny_model)
    wrong = afa("benchmark", file, "data_sets.planted.settings.data.train.path=missing.jsonl")
    assert wrong.returncode == 2
    assert "cell planted/ce/seed0: missing.jsonl: no such file" in wrong.stderr
    assert not (tmp_path / "out").exists()
    plan = afa("benchmark", file, "--dry-run", "--only", "planted/ce")
    assert plan.returncode == 0, plan.stderr
    assert "planted/ce/seed0" in plan.stdout and str(STEPS) in plan.stdout
    assert not (tmp_path / "out").exists()
