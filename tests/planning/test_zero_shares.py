"""Planned shares of a rank against two real ranks under DeepSpeed: all bytes that live between backward and step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from loaded import save_random_llama

from afa_llm.config_loading import dump_config, load_config
from afa_llm.planning.layout import layout_of
from afa_llm.planning.plan import make_plan
from afa_llm.training.distributed import free_port

NOT_HELD = ("gathered by ZeRO 3, at most", "adversary", "activations for backward", "working memory")


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "quantization"), [(2, "nf4"), (3, "nf4"), (3, "int8"), (3, "none")])
def test_two_ranks_hold_what_is_planned(tmp_path: Path, stage: int, quantization: str) -> None:
    model = save_random_llama(tmp_path / "model")
    limits = {"reduce_bucket_size": 200_000, "stage3_param_persistence_threshold": 10_000}
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": limits}))
    overrides = [f"model.path={model}", f"model.quantization={quantization}", "training.engine=deepspeed"]
    overrides += [f"training.zero_stage={stage}", f"training.deepspeed_file={tmp_path / 'ds.json'}"]
    config = load_config(None, [*overrides, "data.max_tokens=16"])
    (tmp_path / "config.yaml").write_text(dump_config(config))
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", "2"]
    worker = str(Path(__file__).with_name("zero_worker.py"))
    done = subprocess.run(
        [*launcher, "--master_port", str(free_port()), worker, str(tmp_path / "config.yaml"), str(tmp_path / "found")],
        cwd=tmp_path,
        env=os.environ | {"DS_ACCELERATOR": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    plan = make_plan(config, layout_of(config, 2, 2, on_gpu=False), on_gpu=False)
    planned = {part.name: part.bytes for part in plan.device if part.name not in NOT_HELD}
    if stage == 2:  # given back after the backward
        del planned["DeepSpeed's gradient buckets"]
    assert json.loads((tmp_path / "found").read_text()) == pytest.approx(sum(planned.values()), rel=0.02)
