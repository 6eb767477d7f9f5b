"""A stop that is asked for anywhere inside a step: nothing that was learned is lost, and the resumed run ends as if it
had never been."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small_training import everything, small_trainer
from stopping import ASKING, VALIDATED, differing, rows, stop_in
from two_ranks import on_two_ranks

from afa_llm.errors import AfaError, EnginesFailedError, StoppedError
from afa_llm.records import Answers, AnswerWords
from afa_llm.rollouts.generator import TransformersGenerator
from afa_llm.training.best_validation import best_step
from afa_llm.training.trainer import Trainer


def validated(model: Path, folder: Path, *settings: str) -> Trainer:
    folder.mkdir(exist_ok=True)
    return small_trainer(model, folder, *VALIDATED, *settings)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("step_*"))


@pytest.fixture(scope="module")
def unbroken(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer, Any]:
    folder = tmp_path_factory.mktemp("unbroken")
    trainer = validated(tiny_model, folder)
    return folder, trainer, trainer.run()


@pytest.mark.parametrize("passes", [0, 1, 2])
@pytest.mark.parametrize("validation", [1, 2, 3])
def test_a_stop_during_validation_saves_the_step_and_leaves_the_rest_for_later(
    unbroken: tuple, tiny_model: Path, tmp_path: Path, validation: int, passes: int
) -> None:
    folder, whole, summary = unbroken
    trainer, step = validated(tiny_model, tmp_path), 2 * validation
    stop_in(trainer, validation, passes)
    with pytest.raises(StoppedError, match=rf"stopped by SIGTERM after step {step} of 6, saved in .*step_00000{step};"):
        trainer.run()
    assert f"step_00000{step}" in checkpoints(tmp_path)
    before = best_step(tmp_path / "checkpoints")
    assert before is None if validation == 1 else before is not None and before[0] < step
    assert [row["step"] for row in rows(tmp_path)] == [n for n in (2, 4, 5, 6) if n <= step]
    assert "validation_loss" not in rows(tmp_path)[-1]

    again = validated(tiny_model, tmp_path, "run.resume=true")
    found = again.run()
    assert found.resumed_from == step
    assert differing(everything(whole), everything(again)) == []
    assert rows(tmp_path) == rows(folder)
    assert best_step(tmp_path / "checkpoints") == best_step(folder / "checkpoints")
    assert (found.forward_tokens, found.backward_tokens) == (summary.forward_tokens, summary.backward_tokens)
    assert found.last_metrics["validation_loss"] == summary.last_metrics["validation_loss"]


def test_a_validation_may_be_stopped_again_and_again(unbroken: tuple, tiny_model: Path, tmp_path: Path) -> None:
    folder, whole, _ = unbroken
    for turn in range(3):
        trainer = validated(tiny_model, tmp_path, f"run.resume={turn > 0}".lower())
        stop_in(trainer, 1 if turn else 3, 1)
        with pytest.raises(StoppedError, match="after step 6 of 6"):
            trainer.run()
        assert "validation_loss" not in rows(tmp_path)[-1] and rows(tmp_path)[-1]["step"] == 6
    again = validated(tiny_model, tmp_path, "run.resume=true")
    again.run()
    assert differing(everything(whole), everything(again)) == []
    assert rows(tmp_path) == rows(folder)
    assert best_step(tmp_path / "checkpoints") == best_step(folder / "checkpoints")
    state = json.loads((tmp_path / "checkpoints" / "step_000006" / "state.json").read_text())
    assert state["unvalidated"] is False


def test_a_late_validation_may_be_the_best(tiny_model: Path, tmp_path: Path) -> None:
    """The weights that it was of are taken, though no step came after it."""
    trainer = validated(tiny_model, tmp_path, "training.adapter=best")
    stop_in(trainer, 2, 1)
    with pytest.raises(StoppedError, match="after step 4"):
        trainer.run()
    (tmp_path / "checkpoints" / "best.json").write_text('{"step": 2, "validation_loss": 50.0}')
    again = validated(tiny_model, tmp_path, "training.adapter=best", "run.resume=true")
    losses = iter([0.4, 0.5])
    again.validate = lambda: next(losses)
    assert again.run().adapter_step == 4
    assert best_step(tmp_path / "checkpoints") == (4, 0.4)


class Asked:
    """The decoder's own answers, by the version that was delivered; a stop is asked for while some of them are waited
    for."""

    def __init__(self, trainer: Trainer, stop_at: int = 0) -> None:
        self.trainer, self.stop_at, self.waits, self.version = trainer, stop_at, 0, -1
        self.generator = TransformersGenerator(trainer.round.decoder, 16)
        self.rounds_of_the_adversary: list[int] = []
        trainer.round.looker.generator, trainer.deliver = self, self.deliver

    def deliver(self, version: int) -> dict[str, float]:
        self.version = version
        return {"delivery_gap": 0.0}

    def answer(self, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> Answers:
        return Answers(self.generator.answer(prompts, answers).label_logprob_NC, self.version)

    def ask(self, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> Any:
        outer = self

        class Pending:
            def result(self) -> Answers:
                outer.waits += 1
                adversary = outer.trainer.round.feedback.adversary
                assert adversary is not None
                outer.rounds_of_the_adversary.append(adversary.rounds)
                if outer.waits == outer.stop_at:
                    outer.trainer.world.stop.ask("SIGTERM")
                    outer.trainer.world.beat()
                return outer.answer(prompts, answers)

        return Pending()

    def rest(self) -> None: ...


@pytest.mark.parametrize("stop_at", [1, 3, 4, 8])
def test_a_stop_while_an_engine_is_waited_for_saves_the_step_before(
    tiny_model: Path, tmp_path: Path, stop_at: int
) -> None:
    """Two micro-batches a round: in the first round, at the first and at the second of the next, and in the last."""
    whole, step = small_trainer(tiny_model, _made(tmp_path / "whole"), *ASKING), (stop_at - 1) // 2
    Asked(whole)
    play, stood = whole.round.play, {}

    def played(*arguments: Any, **named: Any) -> Any:
        if named["step"] == step:
            stood.update((name, tensor.clone()) for name, tensor in everything(whole).items())
        return play(*arguments, **named)

    whole.round.play = played  # type: ignore[method-assign]
    summary = whole.run()

    folder = _made(tmp_path / "broken")
    trainer = small_trainer(tiny_model, folder, *ASKING)
    asked = Asked(trainer, stop_at)
    with pytest.raises(StoppedError, match=rf"stopped by SIGTERM after step {step} of 4, saved in .*step_00000{step};"):
        trainer.run()
    assert asked.rounds_of_the_adversary[-1] == step + 1  # it had learned from the round that was given up
    assert differing(stood, everything(trainer)) == []
    assert checkpoints(folder) == [f"step_00000{step}"]

    again = small_trainer(tiny_model, folder, *ASKING, "run.resume=true")
    Asked(again)
    found = again.run()
    assert differing(everything(whole), everything(again)) == []
    assert rows(folder) == rows(tmp_path / "whole")
    assert (found.forward_tokens, found.backward_tokens) == (summary.forward_tokens, summary.backward_tokens)


def test_a_stop_while_an_adapter_is_delivered_saves_the_step_before(tiny_model: Path, tmp_path: Path) -> None:
    trainer = small_trainer(tiny_model, tmp_path, *ASKING)

    def deliver(version: int) -> dict[str, float]:
        if version == 2:
            raise StoppedError("another rank was asked")
        return {}

    trainer.deliver = deliver
    with pytest.raises(StoppedError, match="stopped by a signal to another rank after step 2 of 4, saved in "):
        trainer.run()
    assert checkpoints(tmp_path) == ["step_000002"]


@pytest.mark.parametrize("kind", [EnginesFailedError, AfaError])
def test_an_adapter_that_does_not_arrive_costs_no_step(tiny_model: Path, tmp_path: Path, kind: type) -> None:
    """An error of this rank alone is known to all where there is no other."""
    trainer = small_trainer(tiny_model, tmp_path, *ASKING)

    def deliver(version: int) -> dict[str, float]:
        if version in failing:
            raise kind("rollouts: adapter version did not arrive.")
        return {}

    trainer.deliver, failing = deliver, [2]
    with pytest.raises(EnginesFailedError, match=r"not arrive\. 2 of 4 steps are saved in .*step_000002: run\.resume"):
        trainer.run()
    assert checkpoints(tmp_path) == ["step_000002"]
    _made(tmp_path / "b")
    trainer = small_trainer(tiny_model, tmp_path / "b", *ASKING)
    trainer.deliver, failing = deliver, [0]
    with pytest.raises(kind, match=r"arrive\.$"):  # nothing was learned yet
        trainer.run()
    assert checkpoints(tmp_path / "b") == []


def test_two_ranks_stop_together_and_go_on_together(tiny_model: Path, tmp_path: Path) -> None:
    """One of them is asked to, in the middle of a validation or while the engine is waited for, or its engine fails;
    the other only hears of it."""
    found, other = on_two_ranks("stop_worker.py", str(tiny_model), str(tmp_path))
    assert found == other
    assert list(found) == ["validation 0", "validation 1", "engine 0", "engine 1", "failure 0"]
    for case, happened in found.items():
        broken, whole = tmp_path / case / "broken", tmp_path / case / "whole"
        said = happened.pop("said")
        reason = "rollouts.restarts = 0: the engine failed once more. 2 of 4 steps are saved in "
        assert said.startswith(reason if case == "failure 0" else "stopped by SIGTERM after step 2 of 4, saved in "), (
            case
        )
        assert str(broken / "checkpoints" / "step_000002") in said, case
        assert happened == {"checkpoints": ["step_000002"], "resumed": 2, "differing": []}, case
        assert rows(broken) == rows(whole), case
        assert best_step(broken / "checkpoints") == best_step(whole / "checkpoints"), case


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
