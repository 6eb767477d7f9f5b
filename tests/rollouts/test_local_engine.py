"""An engine in this process that breaks half way: told in one message, at which a trainer saves what was learned."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from afa_llm.errors import AfaError, EnginesFailedError, StoppedError
from afa_llm.records import AnswerWords
from afa_llm.rollouts.engine_process import EngineLaunch
from afa_llm.rollouts.generator import ALONE
from afa_llm.rollouts.local_proposals import LocalProposer, draw_parameters
from afa_llm.rollouts.proposals import Continuation, Draw
from afa_llm.rollouts.vllm_local import LocalEngine
from afa_llm.rollouts.vllm_server import ServerGenerator

ANSWERS = AnswerWords(("bad", "good"), ((5,), (6,)))


class Broken:
    """vLLM out of memory, whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name == "llm_engine":
            return self

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError(f"out of memory in {name}")

        return fail


def nothing() -> None: ...


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> LocalEngine:
    found = LocalEngine(EngineLaunch(sys.executable, "model", None, "float32", 64, 8, ("q_proj",)))
    monkeypatch.setattr(found, "_parameters", lambda **values: values)
    found._llm, found.shares_memory = Broken(), True
    return found


def test_words_that_cannot_be_drawn_are_told(engine: LocalEngine) -> None:
    proposer = LocalProposer(engine, nothing)
    with pytest.raises(AfaError, match="the engine failed: RuntimeError: out of memory in generate"):
        proposer.draw([Draw((1, 2), 0)])
    with pytest.raises(AfaError, match="out of memory in generate"):
        proposer.score([Continuation((1, 2), (3,))])


def test_a_stop_while_words_are_drawn_stays_a_stop(engine: LocalEngine) -> None:
    def beat() -> None:
        raise StoppedError("stopped by SIGTERM")

    with pytest.raises(StoppedError):
        LocalProposer(engine, beat).draw([Draw((1, 2), 0)])


def test_an_engine_that_cannot_wake_or_sleep_is_told(engine: LocalEngine) -> None:
    generator = ServerGenerator(engine, ALONE, [0])
    with pytest.raises(AfaError, match="cannot give memory back: RuntimeError: out of memory in sleep"):
        generator.rest()
    engine._asleep = True
    with pytest.raises(EnginesFailedError, match=r"rollouts.memory_share = 0.4 may be too much .* in wake_up"):
        generator.answer([(1, 2)], ANSWERS)
    engine._llm = None  # it was closed while it slept
    with pytest.raises(EnginesFailedError, match="the engine has ended"):
        generator.answer([(1, 2)], ANSWERS)
    generator.close()


def test_an_adapter_that_cannot_be_unloaded_is_told(engine: LocalEngine) -> None:
    class Request:
        lora_int_id = 1

    engine._adapters["old"] = Request()
    with pytest.raises(AfaError, match="cannot unload the adapter old: RuntimeError: out of memory in remove_lora"):
        engine.hold({}, nothing)


@pytest.mark.parametrize("banned", [None, 3, 9, 40])
def test_allowed_tokens_are_named_in_order_without_the_banned_one(banned: int | None) -> None:
    draw = Draw((1,), 0, allowed=frozenset({40, 9, 7}), banned=banned)
    named = draw_parameters(draw)["allowed_token_ids"]
    assert named == sorted({7, 9, 40} - {banned}) and draw.possible
    assert not Draw((1,), 0, allowed=frozenset({9}), banned=9).possible
