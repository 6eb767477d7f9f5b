"""The watch over the attention sink: sounds once, where a sink that was there is gone for several steps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from small_training import small_trainer

from afa_llm.errors import StoppedError
from afa_llm.training import sink_watch
from afa_llm.training.sink_watch import SinkWatch


def heard(*levels: float) -> list[tuple[int, str]]:
    watch = SinkWatch()
    told = [(step, watch.see(level, step)) for step, level in enumerate(levels, 1)]
    found = [(step, text) for step, text in told if text]
    assert watch.alarm == (found[0][1] if found else "")
    return found


def test_a_drained_sink_is_told_once() -> None:
    """From 0.6 to under 0.2: with the fourth step at 0.09 the mean of five is (0.6 + 4 * 0.09) / 5 = 0.192. No step
    lies on the threshold: Python rounds the sum of floats in another way from 3.12 on."""
    (found,) = heard(*[0.6] * 8, *[0.09] * 9)
    step, text = found
    assert step == 12
    assert "drained by step 12" in text and "from 0.60 to 0.19" in text and "objective.word_mass_weight" in text


@pytest.mark.parametrize(
    "levels",
    [
        [0.6] * 5 + [0.31] * 20,  # half of it, as tuning alone leaves
        [1.0] + [0.5] * 4 + [0.3] * 20,  # half of 0.6: one step is no start
        [0.6] * 8 + [0.0] * 2 + [0.6] * 8,  # two steps are no level
        [0.1] * 5 + [0.0] * 20,  # no sink to lose
        [0.6] * 5 + [math.nan] * 20,
        [0.0, 0.0],
    ],
)
def test_no_alarm(levels: list[float]) -> None:
    assert heard(*levels) == []


def test_a_step_without_a_number_hides_nothing() -> None:
    assert [step for step, _ in heard(*[0.6] * 5, 0.0, math.nan, 0.0, math.nan, 0.0, 0.0)] == [11]


def test_a_run_tells_it_at_once_and_in_its_summary(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sink_watch, "LEAST_START", 0.0)
    monkeypatch.setattr(sink_watch, "DRAINED", 2.0)  # any level is drained then
    settings = ["training.epochs=1", "objective.policy_gradient_weight=0", "training.log_every=2"]
    summary = small_trainer(tiny_model, tmp_path, *settings).run()
    (alarm,) = summary.alarms
    assert "attention sink drained by step 2: " in alarm
    assert capsys.readouterr().err.count(alarm) == 1


@pytest.mark.parametrize("stop", range(18))
def test_a_watch_that_goes_on_finds_what_one_without_a_break_finds(stop: int) -> None:
    levels, watch = [0.6] * 8 + [0.09] * 9, SinkWatch()
    told = []
    for step, level in enumerate(levels, 1):
        if step == stop:
            watch = SinkWatch(json.loads(json.dumps(watch.state())))
        told.append(bool(watch.see(level, step)))
    assert [step for step, text in enumerate(told, 1) if text] == [12]
    assert "drained by step 12" in watch.alarm


def test_a_resumed_run_has_what_was_found_before_the_stop(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own first steps are no start to compare with: the sink has gone by then."""
    monkeypatch.setattr(sink_watch, "LEAST_START", 0.0)
    monkeypatch.setattr(sink_watch, "DRAINED", 2.0)
    settings = ["training.epochs=1", "objective.policy_gradient_weight=0"]
    trainer = small_trainer(tiny_model, tmp_path, *settings)
    trainer.world.stop.ask("SIGTERM")
    with pytest.raises(StoppedError):
        trainer.run()
    monkeypatch.setattr(sink_watch, "DRAINED", 0.0)
    summary = small_trainer(tiny_model, tmp_path, *settings, "run.resume=true").run()
    (alarm,) = summary.alarms
    assert "attention sink drained by step 1: " in alarm
