"""When the trainer puts its adapter into the engines: before the round that asks for it, as often as set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_training import small_trainer


@pytest.mark.parametrize(("every", "versions"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (9, [0])])
def test_versions_are_delivered_before_their_round(
    tiny_model: Path, tmp_path: Path, every: int, versions: list[int]
) -> None:
    trainer = small_trainer(tiny_model, tmp_path, "training.max_steps=5", f"rollouts.sync_every={every}")
    seen: list[tuple[str, int]] = []
    play = trainer.round.play

    def deliver(version: int) -> dict[str, float]:
        seen.append(("delivered", version))
        return {"delivery_gap": 0.001}

    def played(batches, *, step, **more):  # type: ignore[no-untyped-def]
        seen.append(("played", step))
        return play(batches, step=step, **more)

    trainer.deliver, trainer.round.play = deliver, played  # type: ignore[method-assign]
    trainer.run()
    assert [version for what, version in seen if what == "delivered"] == versions
    assert [seen[seen.index(("played", version)) - 1] for version in versions] == [
        ("delivered", version) for version in versions
    ]
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    gaps = [row.get("delivery_gap") for row in rows]
    assert gaps == [pytest.approx(0.001) if step in versions else None for step in range(5)]


def test_a_resumed_run_delivers_what_it_resumed_with(tiny_model: Path, tmp_path: Path) -> None:
    options = ["rollouts.sync_every=4", "training.checkpoint_every=1"]
    small_trainer(tiny_model, tmp_path, *options, "training.max_steps=2").run()
    trainer = small_trainer(tiny_model, tmp_path, *options, "training.max_steps=7", "run.resume=true")
    delivered: list[int] = []
    trainer.deliver = lambda version: delivered.append(version) or {}  # type: ignore[func-returns-value]
    trainer.run()
    assert delivered == [2, 6]


def test_rounds_know_how_much_of_the_run_is_done(tiny_model: Path, tmp_path: Path) -> None:
    trainer = small_trainer(tiny_model, tmp_path, "training.max_steps=4")
    play, done = trainer.round.play, []

    def played(batches, *, progress, **more):  # type: ignore[no-untyped-def]
        done.append(progress)
        return play(batches, progress=progress, **more)

    trainer.round.play = played  # type: ignore[method-assign]
    trainer.run()
    assert done == [0, 0.25, 0.5, 0.75]


def test_passes_that_prove_a_delivery_are_not_counted_as_training(tiny_model: Path, tmp_path: Path) -> None:
    summaries = []
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
        trainer = small_trainer(tiny_model, tmp_path / name, "training.max_steps=2")
        decoder = trainer.round.decoder
        if name == "with":
            trainer.deliver = lambda version, decoder=decoder: decoder.tokens.add(1000, False) or {}  # type: ignore
        summaries.append(trainer.run())
    assert summaries[0].forward_tokens == summaries[1].forward_tokens > 0
