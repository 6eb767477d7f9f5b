"""A user's DeepSpeed file: what contradicts the run, and what DeepSpeed itself refuses, is told in one message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from afa_llm.config_running import Training
from afa_llm.errors import AfaError
from afa_llm.training.deepspeed_engine import deepspeed_settings
from afa_llm.training.distributed import World

ALONE = World(0, 1, torch.device("cpu"))
BUILD = """
import sys, torch
from afa_llm.config_running import Training
from afa_llm.errors import AfaError
from afa_llm.training import distributed
from afa_llm.training.deepspeed_engine import DeepSpeedEngine

world = distributed.start("deepspeed", 2)
for path in sys.argv[1:]:
    try:
        DeepSpeedEngine(torch.nn.Linear(3, 1), Training(engine="deepspeed", zero_stage=2, deepspeed_file=path), world)
        print("taken")
    except AfaError as error:
        print(str(error))
"""


def written(folder: Path, content: Any) -> str:
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize("section", ["optimizer", "scheduler", "fp16", "bf16", "bfloat16", "torch_autocast"])
def test_what_the_run_settles_is_refused(tmp_path: Path, section: str) -> None:
    """The last two would compute the float32 adapter in bfloat16."""
    path = written(tmp_path, {section: {"enabled": True}})
    with pytest.raises(AfaError, match=f"section {section} is the run's own; take it out"):
        deepspeed_settings(Training(engine="deepspeed", deepspeed_file=path), ALONE)


def test_sections_of_another_form_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, {"zero_optimization": 2})
    with pytest.raises(AfaError, match="zero_optimization = 2: must be an object"):
        deepspeed_settings(Training(engine="deepspeed", deepspeed_file=path), ALONE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"zero_optimisation": {"offload_optimizer": {"device": "cpu"}}}, "did you mean zero_optimization"),
        ({"zero": {"stage": 0}}, "section zero is none that DeepSpeed reads; did you mean zero_optimization"),
        ({"offload_optimizer": {"device": "cpu"}}, "offload_optimizer stands outside of zero_optimization"),
        ({"stage": 0}, "stage stands outside of zero_optimization"),
        ({"zero_optimization": {"stage": "0"}}, "stage = '0' but training.zero_stage = 0"),
    ],
)
def test_what_deepspeed_would_pass_over_is_refused(tmp_path: Path, values: dict, message: str) -> None:
    path = written(tmp_path, values)
    with pytest.raises(AfaError, match=message):
        deepspeed_settings(Training(engine="deepspeed", deepspeed_file=path), ALONE)


def test_other_sections_of_deepspeed_pass(tmp_path: Path) -> None:
    others = {
        "wall_clock_breakdown": False,
        "aio": {},
        "comms_logger": {"enabled": False},
        "zero_allow_untested_optimizer": True,
    }
    found = deepspeed_settings(Training(engine="deepspeed", deepspeed_file=written(tmp_path, others)), ALONE)
    assert others.items() <= found.items()


def test_what_deepspeed_refuses_is_told_with_the_file(tmp_path: Path) -> None:
    wrong = {
        "Extra inputs are not permitted": {"zero_optimization": {"reduce_buckets": 3}},
        "Input should be 'none', 'cpu' or 'nvme'": {"zero_optimization": {"offload_optimizer": {"device": "gpu"}}},
        "gradient_predivide_factor != 1.0": {"prescale_gradients": True, "gradient_predivide_factor": 4.0},
        "AMP integration has been removed": {"amp": {"enabled": True}},
    }
    files = [written(tmp_path, content) for content in [*wrong.values(), {"zero_optimization": {"stage": 2}}]]
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", BUILD, *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line == "taken" or ".json: " in line]
    assert len(said) == len(files) and said.pop() == "taken"
    for line, file, reason in zip(said, files, wrong, strict=False):
        assert line.startswith(f"{file}: DeepSpeed does not take it: ") and reason in line
