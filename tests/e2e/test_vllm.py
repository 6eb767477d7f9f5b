"""Whole runs whose masked prompts are answered by a real vLLM server: the same numbers, one process or two ranks."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import torch
from needs import needs_vllm
from processes import command_of
from small_run import adapter, metrics, timeless

if TYPE_CHECKING:
    from conftest import Job

pytestmark = [pytest.mark.vllm, needs_vllm]
RUN = [
    "train",
    "model.quantization=none",
    "model.dtype=float32",
    "data.train.max_samples=64",
    "data.evaluation=[{path: 'builtin:planted', split: test, max_samples: 24}]",
    "prompts.evaluation=[review_sentiment]",
    "evaluation.focus_samples=4",
    "training.reviews_per_step=16",
    "training.max_steps=3",
    "training.learning_rate=1e-3",
    "adversary.warmup_rounds=0",
    "masking.view=delete",
    "rollouts.reader=tuned",  # so that the adapter travels
]
ENGINE = [
    "rollouts.backend=vllm_server",
    f"rollouts.vllm_python={os.environ.get('AFA_VLLM_PYTHON', sys.executable)}",
    "rollouts.server_arguments=[--enforce-eager]",
    "evaluation.through_engine=true",
]
TWO_RANKS = ["training.engine=deepspeed", "training.zero_stage=2"]
CLOSE = 2e-3  # of rewards, which follow log p near certainty; worst case measured: 2e-4 between one rank and two


def engine_of(job: Job) -> list[psutil.Process]:
    """Guard, server and core below rank 0."""
    below = job.ranks()[0].children(recursive=True)
    assert any("api_server" in " ".join(command_of(process)) for process in below)
    return below


def all_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, 30)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def trains(folder: Path) -> Callable[[], bool]:
    return lambda: (folder / "metrics.jsonl").exists() and len((folder / "metrics.jsonl").read_text().splitlines()) > 1


def test_an_engine_gives_the_numbers_of_the_decoder_itself(afa: Callable, tmp_path: Path) -> None:
    for name, more, ranks in (("own", [], 0), ("engine", ENGINE, 0), ("ranks", ENGINE + TWO_RANKS, 2)):
        done = afa(*RUN, f"run.name={name}", *more, ranks=ranks, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
    own = metrics(tmp_path / "runs" / "own")
    for name in ("engine", "ranks"):
        rows = metrics(tmp_path / "runs" / name)
        for mine, theirs in zip(own, rows, strict=True):
            assert theirs["delivery_gap"] < 1e-5 and theirs["answers_age"] == 0
            for key, value in timeless(mine).items():
                assert theirs[key] == pytest.approx(value, abs=CLOSE), (name, key)
        first, second = (adapter(tmp_path / "runs" / run) for run in ("own", name))
        apart = torch.cat([(first[key] - second[key]).abs().flatten() for key in first])
        # Adam moves a weight whose gradient is next to nothing by a whole step, to whichever side the rounding falls:
        # single weights may be a step or two apart, where their mean tells.
        assert apart.mean() < 1e-6 and (apart > 1e-4).float().mean() < 1e-3
    own_row = own[-1]
    assert abs(own_row["label_drop_attended"]) > 1e-3  # there is something to agree on


def test_an_engine_that_judges_by_the_base_needs_no_adapter(afa: Callable, tmp_path: Path) -> None:
    base = [*RUN, "rollouts.reader=base"]
    for name, more in (("own", []), ("engine", [*ENGINE, "evaluation.through_engine=false", "rollouts.sync_every=2"])):
        done = afa(*base, f"run.name={name}", *more, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
    for mine, theirs in zip(*(metrics(tmp_path / "runs" / name) for name in ("own", "engine")), strict=True):
        assert not {"delivery_gap", "stale_share"} & theirs.keys()
        for key, value in timeless(mine).items():
            assert theirs[key] == pytest.approx(value, abs=CLOSE), key


@pytest.mark.parametrize(
    ("fault", "code"), [("engine killed", 2), ("stopped", 75), ("guard killed", 2), ("rank 0 killed", None)]
)
def test_both_ranks_end_together_and_leave_no_engine(
    start_job: Callable[..., Job], tmp_path: Path, fault: str, code: int | None
) -> None:
    job = start_job(
        *RUN, *ENGINE, *TWO_RANKS, "evaluation.through_engine=false", "training.max_steps=500", "training.epochs=500",
        "rollouts.restarts=0", ranks=2,
    )  # fmt: skip
    job.wait_for(trains(tmp_path / "runs" / "run"), "two steps", 400)
    ranks, engine = job.ranks(), engine_of(job)
    if fault in ("engine killed", "guard killed"):
        guards = ["engine_guard" in " ".join(command_of(process)) for process in engine]
        engine[guards.index(fault == "guard killed")].kill()
    elif fault == "stopped":
        ranks[1].send_signal(signal.SIGTERM)
    else:
        ranks[0].kill()
    ended = job.ends(120)
    assert all_gone([*ranks.values(), *engine]), job.text()
    if code is not None:
        assert ended == code, job.text()
    if code == 2:
        assert job.text().count("rollouts.restarts = 0: the engine failed once more") == 1
        assert "Traceback" not in job.text()
