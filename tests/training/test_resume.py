"""A run that was stopped anywhere ends as if it had never been."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from small_training import everything, small_trainer

from afa_llm.data.batching import plan_epoch, share
from afa_llm.errors import AfaError, StoppedError
from afa_llm.training.best_validation import best_step
from afa_llm.training.durable_files import digest_of

STEPS = 12
VALIDATED = [
    "data.validation={path: 'builtin:planted', split: validation, max_samples: 6}",
    "training.validate_every=3",
    "training.adapter=best",
    "training.keep_checkpoints=1",
    "training.checkpoint_every=0",
]


@pytest.fixture(scope="module")
def whole(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, torch.Tensor], list[dict], tuple[int, int]]:
    """An unbroken run of twelve steps with a checkpoint after each: folder, final state, metrics, tokens."""
    folder = tmp_path_factory.mktemp("whole")
    trainer = small_trainer(tiny_model, folder, "training.checkpoint_every=1", f"training.keep_checkpoints={STEPS}")
    assert trainer.total_steps == STEPS
    summary = trainer.run()
    return folder, everything(trainer), _metrics(folder), (summary.forward_tokens, summary.backward_tokens)


def _metrics(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "seconds" not in k and "memory" not in k} for row in rows]


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_resumed_after_any_step(whole: tuple, tiny_model: Path, tmp_path: Path, stop: int) -> None:
    folder, final, metrics, tokens = whole
    shutil.copytree(folder / "checkpoints" / f"step_{stop:06d}", tmp_path / "checkpoints" / f"step_{stop:06d}")
    (tmp_path / "metrics.jsonl").write_text((folder / "metrics.jsonl").read_text())
    torch.manual_seed(99)  # whatever the random state of the new process
    trainer = small_trainer(tiny_model, tmp_path, "run.resume=true", "training.checkpoint_every=0")
    summary = trainer.run()
    assert summary.resumed_from == stop
    assert (summary.forward_tokens, summary.backward_tokens) == tokens
    again = everything(trainer)
    assert again.keys() == final.keys()
    assert [name for name in final if not torch.equal(final[name], again[name])] == []
    assert _metrics(tmp_path) == metrics


def test_a_checkpoint_that_holds_random_states_is_read(whole: tuple, tiny_model: Path, tmp_path: Path) -> None:
    """As earlier versions wrote them."""
    folder, final, *_ = whole
    path = Path(shutil.copytree(folder / "checkpoints" / "step_000007", tmp_path / "checkpoints" / "step_000007"))
    state = torch.load(path / "rank_0.pt", weights_only=True)
    assert state.keys() == {"replay"}
    torch.save(state | {"random": {"cpu": torch.get_rng_state()}}, path / "rank_0.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["rank_0.pt"] = digest_of(path / "rank_0.pt")
    (path / "manifest.json").write_text(json.dumps(manifest))
    trainer = small_trainer(tiny_model, tmp_path, "run.resume=true")
    assert trainer.run().resumed_from == 7
    again = everything(trainer)
    assert [name for name in final if not torch.equal(final[name], again[name])] == []


def test_time_before_a_stop_counts(whole: tuple, tiny_model: Path, tmp_path: Path) -> None:
    """A run's time, and what a benchmark calls a cell's budget, were those of its last part."""
    folder, *_ = whole
    path = Path(shutil.copytree(folder / "checkpoints" / "step_000007", tmp_path / "checkpoints" / "step_000007"))
    state = json.loads((path / "state.json").read_text())
    assert 0 < state["seconds"] < 600
    (path / "state.json").write_text(json.dumps(state | {"seconds": 1000.0}))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["state.json"] = digest_of(path / "state.json")
    (path / "manifest.json").write_text(json.dumps(manifest))
    trainer = small_trainer(tiny_model, tmp_path, "run.resume=true")
    assert 1000 < trainer.run().seconds < 1600
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in lines] == [8, 9, 10, 11, 12]
    assert all(1000 < row["seconds"] < 1600 for row in lines)
    last = tmp_path / "checkpoints" / f"step_{STEPS:06d}" / "state.json"
    assert 1000 < json.loads(last.read_text())["seconds"] < 1600


def test_resumed_after_the_last_step_says_what_the_run_said(whole: tuple, tiny_model: Path, tmp_path: Path) -> None:
    """It was killed while the trained model was measured."""
    folder, _, metrics, _ = whole
    shutil.copytree(folder / "checkpoints" / f"step_{STEPS:06d}", tmp_path / "checkpoints" / f"step_{STEPS:06d}")
    (tmp_path / "metrics.jsonl").write_text((folder / "metrics.jsonl").read_text())
    trainer = small_trainer(
        tiny_model, tmp_path, "run.resume=true", "adversary.auroc_low=0.5", "adversary.auroc_high=0.51"
    )
    summary = trainer.run()
    said = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"step": STEPS, "seconds": said["seconds"]} | summary.last_metrics == said
    assert summary.last_metrics["adversary_auroc"] > 0.51 and len(summary.alarms) == 1
    assert _metrics(tmp_path) == metrics
    (tmp_path / "metrics.jsonl").unlink()
    assert small_trainer(tiny_model, tmp_path, "run.resume=true").run().last_metrics == {}


def test_stopped_by_a_signal_saves_and_raises(tiny_model: Path, tmp_path: Path) -> None:
    trainer = small_trainer(tiny_model, tmp_path)
    trainer.world.stop.ask("SIGUSR1")
    with pytest.raises(StoppedError, match=r"stopped by SIGUSR1 after step 1 of 12, saved in .*step_000001"):
        trainer.run()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000001"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lora.rank=3", "step_000003: does not fit this run's model"),
        ("training.max_steps=2", "step_000003 stands after 3 steps, and 2 are planned"),
        ("run.seed=1", r"step_000003 was made with run\.seed = 0, now it is 1: .* set run\.seed=0, or choose"),
        (
            "training.reviews_per_step=4",
            r"made with training\.reviews_per_step = 8, now it is 4: .* middle of an epoch",
        ),
        ("training.reviews_per_step=30", r"made with training\.reviews_per_step = 8, now it is 30: "),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    whole: tuple, tiny_model: Path, tmp_path: Path, setting: str, message: str
) -> None:
    folder, *_ = whole
    shutil.copytree(folder / "checkpoints" / "step_000003", tmp_path / "checkpoints" / "step_000003")
    trainer = small_trainer(tiny_model, tmp_path, "run.resume=true", setting)
    with pytest.raises(AfaError, match=message):
        trainer.run()


def test_non_finite_steps_in_a_row_stop_with_a_checkpoint(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = small_trainer(tiny_model, tmp_path, "training.max_skipped_steps=2")
    backward = trainer.engine.backward
    monkeypatch.setattr(trainer.engine, "backward", lambda loss: backward(loss * float("nan")))
    before = {name: value.clone() for name, value in trainer.engine.state().items()}
    with pytest.raises(AfaError, match=r"3 steps in a row had a non-finite gradient, the last is step 3; checkpoint "):
        trainer.run()
    assert all(torch.equal(before[name], value) for name, value in trainer.engine.state().items())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000003"]


def test_the_best_validation_is_kept_and_used(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = small_trainer(tiny_model, tmp_path, *VALIDATED)
    real = trainer.validate
    assert real is not None and 0 < real() < 3
    losses = iter([0.9, 0.4, 0.6, 0.5])
    monkeypatch.setattr(trainer, "validate", lambda: next(losses))
    seen: dict[int, torch.Tensor] = {}
    save = trainer.save
    monkeypatch.setattr(trainer, "save", lambda step: (seen.update({step: _weights(trainer)}), save(step))[1])
    assert trainer.run().adapter_step == 6
    assert best_step(tmp_path / "checkpoints") == (6, 0.4)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*")) == ["step_000006", "step_000012"]
    assert torch.equal(_weights(trainer), seen[6]) and not torch.equal(seen[6], seen[12])
    validated = {row["step"]: row["validation_loss"] for row in _metrics(tmp_path) if "validation_loss" in row}
    assert validated == {3: 0.9, 6: 0.4, 9: 0.6, 12: 0.5}


@pytest.mark.parametrize(
    ("losses", "taken"), [([math.nan, 0.9, 0.4, 0.5], 9), ([0.9, math.nan, 1.0, math.inf], 3), ([math.nan] * 4, 12)]
)
def test_a_validation_that_is_no_number_is_not_the_best(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    losses: list[float],
    taken: int,
) -> None:
    trainer = small_trainer(tiny_model, tmp_path, *VALIDATED)
    found = iter(losses)
    monkeypatch.setattr(trainer, "validate", lambda: next(found))
    assert trainer.run().adapter_step == taken
    steps = [f"step_{step:06d}" for step in sorted({taken, 12})]
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*")) == steps
    assert ("no validation with a finite loss is noted" in capsys.readouterr().err) == (taken == 12)


def test_a_best_that_was_lost_is_seen_at_resume(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newest checkpoint is the best one and damaged: the run goes back behind it, and finds a best of its own."""
    keep = ["training.keep_checkpoints=4", "training.checkpoint_every=3"]
    trainer = small_trainer(tiny_model, tmp_path, *VALIDATED, *keep)
    losses = iter([0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr(trainer, "validate", lambda: next(losses))
    trainer.run()
    (tmp_path / "checkpoints" / "step_000012" / "engine.safetensors").write_bytes(b"")
    again = small_trainer(tiny_model, tmp_path, *VALIDATED, *keep, "run.resume=true")
    monkeypatch.setattr(again, "validate", lambda: 5.0)
    assert again.resume() == 9
    assert "step_000012, the best validation so far: engine.safetensors does not" in capsys.readouterr().err
    assert again.run().adapter_step == 9  # 0.7, as its metrics say
    assert best_step(tmp_path / "checkpoints") == (9, 0.7)


def test_a_best_that_is_lost_at_the_end_leaves_the_last_weights(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = small_trainer(tiny_model, tmp_path, *VALIDATED)
    losses = iter([0.9, 0.4, 0.6, 0.5])

    def validate() -> float:
        loss = next(losses)
        if loss == 0.5:
            (tmp_path / "checkpoints" / "step_000006" / "engine.safetensors").unlink()
        return loss

    monkeypatch.setattr(trainer, "validate", validate)
    assert trainer.run().adapter_step == 12
    said = capsys.readouterr().err
    assert "step_000006: engine.safetensors is missing; the result is the adapter of the last step instead" in said


def _weights(trainer: object) -> torch.Tensor:
    state = trainer.engine.state()  # type: ignore[attr-defined]
    return torch.cat([value.flatten() for name, value in state.items() if name.endswith("|weight")])


def test_the_order_of_reviews_does_not_know_the_number_of_ranks() -> None:
    lengths = [5 + (7 * i) % 23 for i in range(50)]
    for epoch in range(2):
        for step in plan_epoch(lengths, 8, seed=3, epoch=epoch):
            for size in (1, 2, 3):
                shares = [share(step, lengths, world_size=size, rank=rank, micro_batch_size=4) for rank in range(size)]
                taught = [i for parts in shares for part in parts for i, weight in part if weight]
                assert sorted(taught) == sorted(step)


def test_a_run_goes_on_with_the_reviews_it_was_started_with(whole: tuple, tiny_model: Path, tmp_path: Path) -> None:
    """As many others: the steps that are left would be another run's."""
    folder, *_ = whole
    shutil.copytree(folder / "checkpoints" / "step_000007", tmp_path / "checkpoints" / "step_000007")
    other = small_trainer(tiny_model, tmp_path, "run.resume=true", "data.train.split=validation")
    with pytest.raises(AfaError, match=r"step_000007 was made with other training reviews .* choose another run\.name"):
        other.resume()
    assert small_trainer(tiny_model, tmp_path, "run.resume=true").resume() == 7


def test_damaged_lines_of_the_metrics_are_told(
    whole: tuple, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, *_ = whole
    shutil.copytree(folder / "checkpoints" / "step_000007", tmp_path / "checkpoints" / "step_000007")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("\n".join([lines[0], "x\0", *lines[2:], '{"step": 1']) + "\n")
    small_trainer(tiny_model, tmp_path, "run.resume=true").run()
    assert "metrics.jsonl: 1 damaged line(s) left out" in capsys.readouterr().err
    assert [row["step"] for row in _metrics(tmp_path)] == [1, *range(3, STEPS + 1)]
