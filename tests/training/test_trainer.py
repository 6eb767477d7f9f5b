"""Planned steps, step sizes, means, and the metrics file."""

from __future__ import annotations

import errno
import json
import math
import threading
import time
from pathlib import Path

import pytest
import torch
from small_training import small_trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from afa_llm.config_running import Training
from afa_llm.endings import told_endings
from afa_llm.errors import AfaError
from afa_llm.training.distributed import World
from afa_llm.training.metrics import Means, MetricsLog, logged_at
from afa_llm.training.step_batches import planned_steps


def test_planned_steps() -> None:
    assert planned_steps(Training(reviews_per_step=32, epochs=1), 65) == 3
    assert planned_steps(Training(reviews_per_step=32, epochs=2.5), 64) == 5
    assert planned_steps(Training(reviews_per_step=32, epochs=2, max_steps=3), 640) == 3
    assert planned_steps(Training(reviews_per_step=32, epochs=0.001), 10) == 1
    assert planned_steps(Training(reviews_per_step=32, epochs=1.1), 1600) == 55  # 1.1 · 50 is 55.00000000000001
    assert planned_steps(Training(reviews_per_step=32, epochs=1.101), 1600) == 56


def test_means_weigh_reviews_not_batches() -> None:
    means = Means()
    means.add("x", torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
    means.add("x", torch.tensor([8.0, 100.0]), torch.tensor([1.0, 0.0]))
    assert means.over_ranks(World(0, 1, torch.device("cpu"))) == {"x": pytest.approx(4.0)}


def test_a_mean_of_nothing_is_no_number_and_no_fault() -> None:
    means = Means()
    means.put_sum("gaps", 0, 0)
    means.put_sum("x", 6, 2)
    found = means.over_ranks(World(0, 1, torch.device("cpu")))
    assert math.isnan(found["gaps"]) and found["x"] == 3
    means.put_sum("gaps", 1, 4)  # what another micro-batch, or another rank, has of it
    assert means.over_ranks(World(0, 1, torch.device("cpu")))["gaps"] == 0.25


def test_what_a_step_logged_is_read_again(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 3)
    for step in (1, 2):
        log.write(step, {"loss": step / 3, "bad": math.nan})
    log.close()
    found = logged_at(tmp_path, 2)
    assert found.keys() == {"loss", "bad"} and found["loss"] == 2 / 3 and math.isnan(found["bad"])
    assert logged_at(tmp_path, 1)["loss"] == 1 / 3
    assert logged_at(tmp_path, 3) == {}


@pytest.mark.parametrize(
    "content",
    [None, b"", b'{"step": 2, "loss": 0.', b"[2]", b'{"step": 2, "loss": "low"}', b'{"step": 2, "loss": [1]}', b"\xff"],
)
def test_a_step_whose_line_is_damaged_logged_nothing(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 0.5}\n' + content)
    assert logged_at(tmp_path, 2) == {}
    MetricsLog(tmp_path, 3, resume_step=1).close()  # and the run goes on
    assert logged_at(tmp_path, 1) == ({} if content is None else {"loss": 0.5})


def test_metrics_after_a_resume_hold_each_step_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 6)
    for step in range(1, 6):
        log.write(step, {"loss": float(step), "bad": math.nan})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # the process was killed while writing
    log = MetricsLog(tmp_path, 6, resume_step=3)
    log.write(4, {"loss": 40.0})
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["bad"] is None and rows[3]["loss"] == 40.0


def test_a_line_that_is_written_anew_is_one_point_of_the_curves(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 4)
    for step in (1, 2):
        log.write(step, {"loss": step / 2})
    log.close()
    log = MetricsLog(tmp_path, 4, resume_step=2)
    log.amend(2, {"loss": 1.0, "validation_loss": 0.25})
    log.write(3, {"loss": 1.5})
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in curves.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert [(event.step, event.value) for event in curves.Scalars("validation_loss")] == [(2, 0.25)]


def test_a_line_that_finds_the_disk_full_says_where(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 6)
    log.file.close()
    log.file = Path("/dev/full").open("a")  # noqa: SIM115
    with pytest.raises(AfaError, match=r"metrics\.jsonl: No space left on device"), told_endings():
        log.write(1, {"loss": 1.0})
    with pytest.raises(OSError, match="No space"):  # what it holds still has no place
        log.file.close()


def test_a_full_disk_under_the_curves_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*of: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as its thread met it, which names no file

    log = MetricsLog(tmp_path, 6)
    monkeypatch.setattr(log.board, "add_scalar", full)
    with pytest.raises(AfaError, match="tensorboard: No space left on device"), told_endings():
        log.write(1, {"loss": 1.0})
    log.close()


@pytest.mark.parametrize("lines", [1, 100])
def test_the_thread_that_writes_the_curves_says_nothing_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    """It printed a traceback of its own, and what it met after the last line was told by nobody else. Other threads
    still tell what they die of."""
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: died.append(args.exc_value))
    log = MetricsLog(tmp_path, 6)

    def full(*of: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write() -> None:
        for step in range(lines):
            log.write(step, {"loss": 1.0})
            time.sleep(0.01)
        log.close()

    log.board.flush()
    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.raises(AfaError, match="tensorboard: No space left on device"), told_endings():
        write()
    assert died == []
    other = threading.Thread(target=full)
    other.start()
    other.join()
    assert [type(error) for error in died] == [OSError]


def test_a_trained_adapter_that_cannot_be_written_is_told_on_all_ranks(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "full").write_text("")  # no folder can be under it
    trainer = small_trainer(tiny_model, tmp_path)
    with pytest.raises(AfaError, match=r"adapter: the adapter cannot be written.*checkpoints: run.resume=true goes on"):
        trainer.save_adapter(tmp_path / "full" / "adapter")

    class Second(World):
        """Rank 1, that hears of rank 0's trouble."""

        def from_leader(self, item: object) -> object:
            assert item is None
            return "no room"

    trainer.world = Second(1, 2, torch.device("cpu"))
    with pytest.raises(AfaError, match="no room"):
        trainer.save_adapter(tmp_path / "full" / "adapter")
