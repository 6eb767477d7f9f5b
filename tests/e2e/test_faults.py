"""Real jobs that are signalled, killed, stopped and poisoned: they end in time, say who and where, and lose nothing."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from needs import unmet
from small_run import SMALL, adapter, metrics

from afa_llm.training.watchdog import BEAT_SECONDS

LONG = [*SMALL, "training.epochs=60", "training.max_steps=300", "training.checkpoint_every=5"]
DEEPSPEED = ["training.engine=deepspeed", "training.silence_seconds=8"]
SPARE_SECONDS = 60  # a loaded machine, and half a minute that DeepSpeed's launcher may wait for a rank


def steps_done(folder: Path) -> int:
    try:
        return len(metrics(folder))
    except (OSError, ValueError):
        return 0


def at_step(job: object, folder: Path, step: int) -> None:
    job.wait_for(lambda: steps_done(folder) >= step, f"step {step}")  # type: ignore[attr-defined]


def none_left(ranks: dict[int, psutil.Process], seconds: float = 5) -> bool:
    _, alive = psutil.wait_procs(list(ranks.values()), timeout=seconds)
    return not alive


def newest(folder: Path) -> int:
    return max(int(path.name[5:]) for path in (folder / "checkpoints").glob("step_*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_one_rank_saves_all_and_the_run_goes_on(
    start_job: Callable, afa: Callable, tiny_model: Path, tmp_path: Path, number: signal.Signals
) -> None:
    settings = [f"model.path={tiny_model}", *LONG, *DEEPSPEED, "training.max_steps=40", "run.name=one"]
    job, folder = start_job("train", *settings, ranks=2), tmp_path / "runs" / "one"
    at_step(job, folder, 3)
    ranks = job.ranks()
    ranks[1].send_signal(number)
    assert job.ends(SPARE_SECONDS) == 75, job.text()
    assert none_left(ranks)
    stopped = steps_done(folder)
    assert newest(folder) == stopped < 40
    said = job.text()
    assert f"stopped by {number.name} after step {stopped} of 40" in said and "run.resume=true" in said
    assert "Traceback" not in said

    again = afa("train", *settings, "run.resume=true", ranks=2)
    assert again.returncode == 0, again.stderr
    assert [row["step"] for row in metrics(folder)] == list(range(1, 41))
    assert json.loads((folder / "results.json").read_text())["training"]["resumed_from"] == stopped


@pytest.mark.slow
def test_a_stopped_run_ends_like_an_unbroken_one(
    start_job: Callable, afa: Callable, tiny_model: Path, tmp_path: Path
) -> None:
    """One process, a signal at a random moment, bit-equal adapters."""
    settings = [f"model.path={tiny_model}", *LONG, "training.max_steps=25"]
    assert afa("train", *settings, "run.name=whole").returncode == 0
    job, folder = start_job("train", *settings, "run.name=broken"), tmp_path / "runs" / "broken"
    at_step(job, folder, 4)
    job.process.send_signal(signal.SIGTERM)
    assert job.ends(SPARE_SECONDS) == 75, job.text()
    assert afa("train", *settings, "run.name=broken", "run.resume=true").returncode == 0
    whole, broken = adapter(tmp_path / "runs" / "whole"), adapter(folder)
    assert all((whole[name] == broken[name]).all() for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["before", "after"])
def test_a_signal_while_measuring(
    start_job: Callable, afa: Callable, tiny_model: Path, tmp_path: Path, phase: str
) -> None:
    """Some tenths of a second into many passes: nothing to save, the same exit code, and resume measures anew."""
    many = "data.evaluation=[{path: 'builtin:planted', split: test, max_samples: 400}]"
    slow = [many, "evaluation.batch_size=1", "evaluation.focus_samples=0"]
    settings = [f"model.path={tiny_model}", *SMALL, *DEEPSPEED, *slow, "run.name=one"]
    job, folder = start_job("train", *settings, ranks=2), tmp_path / "runs" / "one"
    job.wait_for(lambda: f"{phase}: planted_test" in job.text(), f"phase {phase}")
    time.sleep(0.2)
    ranks = job.ranks()
    ranks[0].send_signal(signal.SIGTERM)
    assert job.ends(SPARE_SECONDS) == 75, job.text()
    assert f"stopped by SIGTERM in phase {phase}" in job.text() and "Traceback" not in job.text()
    assert none_left(ranks)
    quick = ["data.evaluation.0.max_samples=12", "run.resume=true"]
    again = afa("train", *settings, *quick, ranks=2)
    assert again.returncode == 0
    assert ("steps were done before: nothing is left to train" in again.stdout + again.stderr) == (phase == "after")
    said = json.loads((folder / "results.json").read_text())["training"]["last_metrics"]
    assert said["task_loss"] == metrics(folder)[-1]["task_loss"]


@pytest.mark.slow
def test_a_signal_during_validation(start_job: Callable, afa: Callable, tiny_model: Path, tmp_path: Path) -> None:
    """Validation takes nearly all of each step's time: the step is saved, and the resumed run has every loss."""
    lines = (json.dumps({"text": f"a warm and touching film, number {i}", "label": i % 2}) for i in range(500))
    (tmp_path / "many.jsonl").write_text("\n".join(lines) + "\n")
    many = "data.validation={path: many.jsonl}"
    slow = [many, "training.validate_every=1", "evaluation.batch_size=1", "training.max_steps=4"]
    settings = [f"model.path={tiny_model}", *SMALL, *DEEPSPEED, *slow, "training.checkpoint_every=0", "run.name=one"]
    job, folder = start_job("train", *settings, ranks=2), tmp_path / "runs" / "one"
    at_step(job, folder, 2)
    first, second = (row["seconds"] for row in metrics(folder)[:2])
    time.sleep((second - first) / 2)  # the middle of the third step, whatever the machine: far past its training
    ranks = job.ranks()
    ranks[1].send_signal(signal.SIGTERM)
    assert job.ends(SPARE_SECONDS) == 75, job.text()
    assert none_left(ranks)
    stopped = metrics(folder)[-1]
    assert "validation_loss" not in stopped
    assert f"stopped by SIGTERM after step {stopped['step']} of 4, saved in " in job.text()
    assert newest(folder) == stopped["step"] and "Traceback" not in job.text()
    again = afa("train", *settings, "run.resume=true", ranks=2)
    assert again.returncode == 0, again.stderr
    assert [row["step"] for row in metrics(folder)] == [1, 2, 3, 4]
    assert all(0 < row["validation_loss"] < 5 for row in metrics(folder))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_is_named_and_the_run_goes_on(
    start_job: Callable, afa: Callable, tiny_model: Path, tmp_path: Path, victim: int
) -> None:
    settings = [f"model.path={tiny_model}", *LONG, *DEEPSPEED, "training.max_steps=60", "run.name=one"]
    job, folder = start_job("train", *settings, ranks=2), tmp_path / "runs" / "one"
    at_step(job, folder, 7)
    ranks = job.ranks()
    ranks[victim].kill()
    assert job.ends(SPARE_SECONDS) not in (0, 2, 75)
    assert none_left(ranks)
    assert re.search(rf"rank {victim} \(host .*Rank {1 - victim} noticed it in phase training, step \d+", job.text())
    assert newest(folder) >= 5
    again = afa("train", *settings, "run.resume=true", ranks=2)
    assert again.returncode == 0, again.stderr
    assert [row["step"] for row in metrics(folder)] == list(range(1, 61))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_stopped_process_is_named_and_nothing_is_left(
    start_job: Callable, tiny_model: Path, tmp_path: Path, victim: int
) -> None:
    """SIGSTOP: neither dead nor answering. The job ends within training.silence_seconds and what the launcher takes."""
    settings = [f"model.path={tiny_model}", *LONG, *DEEPSPEED, "run.name=one"]
    job, folder = start_job("train", *settings, ranks=2), tmp_path / "runs" / "one"
    at_step(job, folder, 7)
    ranks = job.ranks()
    ranks[victim].suspend()
    began = time.monotonic()
    assert job.ends(SPARE_SECONDS) != 0
    assert (
        time.monotonic() - began > 8 - BEAT_SECONDS
    )  # the silence counts from the last beat, which was before the stop
    assert f"rank {victim} (host" in job.text() and "not been heard of for 8 s" in job.text(), job.text()
    assert none_left(ranks)


@pytest.mark.slow
def test_a_job_that_was_put_to_sleep_goes_on(start_job: Callable, tiny_model: Path, tmp_path: Path) -> None:
    """Ctrl-Z and fg: all ranks stop for longer than training.silence_seconds, and none blames another."""
    settings = [f"model.path={tiny_model}", *LONG, *DEEPSPEED, "training.max_steps=30", "run.name=one"]
    job, folder = start_job("train", *settings, ranks=2), tmp_path / "runs" / "one"
    at_step(job, folder, 5)
    ranks = job.ranks()
    for process in ranks.values():
        process.suspend()
    time.sleep(12)
    for process in ranks.values():
        process.resume()
    assert job.ends(3 * SPARE_SECONDS) == 0, job.text()
    assert steps_done(folder) == 30


@pytest.mark.slow
def test_ranks_end_when_their_launcher_is_killed(start_job: Callable, tiny_model: Path, tmp_path: Path) -> None:
    """The outer `deepspeed` has no handler: its ranks notice that it is gone, save, and end."""
    settings = [f"model.path={tiny_model}", *LONG, *DEEPSPEED, "run.name=one"]
    job, folder = start_job("train", *settings, ranks=2), tmp_path / "runs" / "one"
    at_step(job, folder, 3)
    ranks = job.ranks()
    job.process.kill()
    assert none_left(ranks, SPARE_SECONDS)
    assert newest(folder) == steps_done(folder)
    assert "stopped by the end of its launcher" in job.text()


@pytest.mark.slow
@pytest.mark.system
def test_a_full_disk_ends_with_its_path_and_resumes(
    start_job: Callable, afa: Callable, tiny_model: Path, tmp_path: Path
) -> None:
    """A real small file system fills up between two checkpoints."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True).returncode:
        unmet("no right to mount a small file system")
    try:
        settings = [f"model.path={tiny_model}", *LONG, *DEEPSPEED, "run.name=one", f"run.output_dir={disk}"]
        settings += ["training.max_steps=60", "training.keep_checkpoints=1"]
        job, folder = start_job("train", *settings, ranks=2), disk / "one"
        job.wait_for(lambda: (folder / "checkpoints" / "step_000005").exists(), "first checkpoint")
        ballast = disk / "ballast"
        with ballast.open("wb") as file:  # all but a little: metrics still fit, a checkpoint does not
            file.write(b"0" * (shutil.disk_usage(disk).free - 40_000))
        assert job.ends(SPARE_SECONDS) == 2, job.text()
        assert str(disk) in job.text() and "No space left on device" in job.text()
        assert "Traceback" not in job.text()
        ballast.unlink()
        again = afa("train", *settings, "run.resume=true", ranks=2)
        assert again.returncode == 0, again.stderr
        assert [row["step"] for row in metrics(folder)] == list(range(1, 61))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
