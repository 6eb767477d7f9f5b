"""Rounds whose masked prompts a generator answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from round_parts import ALONE, Parts

from afa_llm.models.decoder import Decoder
from afa_llm.records import Answers, AnswerWords
from afa_llm.rollouts.generator import Asked, TransformersGenerator


class Slow:
    """The decoder's own answers, but only when they are waited for; remembers who asked and when."""

    def __init__(self, decoder: Decoder, version: int = 0) -> None:
        self.generator, self.version, self.log = TransformersGenerator(decoder, 16), version, []  # type: ignore[var-annotated]

    def answer(self, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> Answers:
        return self.ask(prompts, answers).result()

    def ask(self, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> Asked:
        self.log.append("asked")
        outer = self

        class Pending:
            def result(self) -> Answers:
                outer.log.append("waited for")
                found = outer.generator.answer(prompts, answers)
                return Answers(found.label_logprob_NC, outer.version)

        return Pending()

    def rest(self) -> None:
        self.log.append("at rest")


def asking(parts: Parts, version: int = 0) -> Slow:
    generator = Slow(parts.decoder, version)
    parts.round.looker.generator = generator
    return generator


@pytest.mark.parametrize("source", ["adversary", "answer_shift", "probability_drop"])
@pytest.mark.parametrize("overlap", [True, False])
def test_answers_of_a_generator_teach_as_the_decoders_own(tiny_model: Path, source: str, overlap: bool) -> None:
    arm = ["masking.view=delete", f"reward.source={source}", f"rollouts.overlap={overlap}"]
    own = Parts(tiny_model, *arm)
    expected = own.gradient(own.batches(5, 4))
    parts = Parts(tiny_model, *arm)
    generator = asking(parts)
    found = parts.gradient(parts.batches(5, 4))
    assert (found - expected).norm() / expected.norm() < 2e-4
    turns = ["asked", "asked", "waited for", "waited for"] if overlap else ["asked", "waited for"] * 2
    assert generator.log == [*turns, "at rest"]


@pytest.mark.parametrize(("version", "dropped"), [(7, 0.0), (5, 0.0), (4, 1.0)])
def test_answers_older_than_the_bound_teach_nothing_and_are_counted(
    tiny_model: Path, version: int, dropped: float
) -> None:
    parts = Parts(tiny_model, "masking.view=delete", "rollouts.staleness=2", "rollouts.reader=tuned")
    asking(parts, version)
    found = parts.gradient(parts.batches(9), step=7)
    assert parts.means.over_ranks(ALONE)["stale_share"] == dropped
    assert parts.means.over_ranks(ALONE)["answers_age"] == 7 - version
    plain = Parts(tiny_model, "masking.view=delete", "objective.policy_gradient_weight=0")
    without = plain.gradient(plain.batches(9))
    assert torch.equal(found, without) == bool(dropped)


def test_answers_of_the_base_do_not_age(tiny_model: Path) -> None:
    parts = Parts(tiny_model, "masking.view=delete", "rollouts.reader=base")
    asking(parts, version=0)
    found = parts.gradient(parts.batches(9), step=7)
    assert "stale_share" not in parts.means.over_ranks(ALONE)
    plain = Parts(tiny_model, "masking.view=delete", "objective.policy_gradient_weight=0")
    assert not torch.equal(found, plain.gradient(plain.batches(9)))


def test_a_reward_without_adversary_leaves_the_masked_pass_to_the_engine(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(tiny_model, "masking.view=delete", "reward.source=probability_drop")
    asking(parts)
    monkeypatch.setattr(type(parts.round.looker), "_read_masked", lambda *_: pytest.fail("read here too"))
    parts.gradient(parts.batches(4))


@pytest.mark.parametrize(
    ("features", "against"), [("labels", "random"), ("labels", "clean"), ("shift", "random"), ("labels,shift", "clean")]
)
def test_an_adversary_of_answers_sees_those_of_the_engine(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, features: str, against: str
) -> None:
    arm = ["masking.view=delete", f"adversary.features=[{features}]", f"adversary.against={against}"]
    own = Parts(tiny_model, *arm)
    expected = own.gradient(own.batches(5, 4))
    parts = Parts(tiny_model, *arm)
    generator = asking(parts)
    monkeypatch.setattr(type(parts.round.looker), "_read_masked", lambda *_: pytest.fail("read here too"))
    found = parts.gradient(parts.batches(5, 4))
    assert (found - expected).norm() / expected.norm() < 2e-4
    assert parts.means.over_ranks(ALONE)["p_detect"] == pytest.approx(own.means.over_ranks(ALONE)["p_detect"], rel=1e-4)
    assert generator.log == ["asked", "asked", "waited for", "waited for", "at rest"]
