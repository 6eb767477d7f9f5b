"""Ranks that ask engines together, and what each of them sees when something goes wrong. Engines by a formula."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from faulty_server import BASE, FaultyServer, formula
from test_fleet import QUICK, nothing, ready
from test_generator import Member, on_every_rank

from afa_llm.errors import AfaError, StoppedError
from afa_llm.records import AnswerWords
from afa_llm.rollouts.engine_service import EngineService
from afa_llm.rollouts.generator import ALONE
from afa_llm.rollouts.label_scoring import label_logprobs, score_requests
from afa_llm.rollouts.vllm_server import BaseGenerator, ServerGenerator

ANSWERS = AnswerWords(("bad", "very good"), ((5,), (6, 7)))
PROMPTS = [(n, 4, *range(n)) for n in range(1, 15)]


@pytest.fixture
def servers() -> Iterator[list[FaultyServer]]:
    made = [FaultyServer(), FaultyServer()]
    yield made
    for server in made:
        server.close()


def expected(prompts: list[tuple[int, ...]], model: str = BASE) -> torch.Tensor:
    requests = score_requests(prompts, ANSWERS)
    scores = [
        {token: formula(model, list(request.token_ids), token) for token in request.scored_ids} for request in requests
    ]
    return label_logprobs(scores, ANSWERS)


def share(rank: int) -> list[tuple[int, ...]]:
    """Overlapping prompts, of another number on each rank, one of them twice."""
    return [*PROMPTS[rank * 3 : rank * 3 + 4 + rank], PROMPTS[0]]


def test_ranks_ask_each_distinct_prompt_once_and_get_their_own(servers: list[FaultyServer]) -> None:
    def work(member: Member) -> torch.Tensor:
        fleet = ready(servers[member.rank // 2]) if member.rank in (0, 2) else None
        return ServerGenerator(fleet, member, [0, 2]).answer(share(member.rank), ANSWERS).label_logprob_NC

    for rank, found in enumerate(on_every_rank(3, work)):
        assert torch.equal(found, expected(share(rank)))
    asked = servers[0].prompts + servers[1].prompts
    distinct = {request.token_ids for rank in range(3) for request in score_requests(share(rank), ANSWERS)}
    assert set(asked) == distinct and set(asked.values()) == {1}
    assert servers[0].prompts and servers[1].prompts


def test_answers_that_are_under_way_come_in_the_order_of_the_asking(servers: list[FaultyServer]) -> None:
    def work(member: Member) -> list[torch.Tensor]:
        generator = ServerGenerator(ready(servers[0]) if member.rank == 1 else None, member, [1])
        pending = [generator.ask(share(member.rank)[:n], ANSWERS) for n in (3, 1, 4)]
        return [asked.result().label_logprob_NC for asked in pending]

    for rank, found in enumerate(on_every_rank(2, work)):
        assert [torch.equal(part, expected(share(rank)[:n])) for part, n in zip(found, (3, 1, 4), strict=True)] == [
            True
        ] * 3


@pytest.mark.parametrize("holder", [0, 1])
def test_a_failure_of_one_ranks_engine_is_the_same_error_on_all(servers: list[FaultyServer], holder: int) -> None:
    servers[0].faults.extend(["500"] * 100)

    def work(member: Member) -> str:
        generator = ServerGenerator(ready(servers[0]) if member.rank == holder else None, member, [holder])
        with pytest.raises(AfaError) as error:
            generator.answer(share(member.rank), ANSWERS)
        return str(error.value)

    said = on_every_rank(3, work)
    assert len(set(said)) == 1 and "rollouts.retries = 2" in said[0]


def test_a_rank_that_is_asked_to_stop_while_it_waits_stops_all(servers: list[FaultyServer]) -> None:
    servers[0].faults.extend(["hang"] * 10)

    class Leaving(Member):
        def beat(self) -> None:
            raise StoppedError("stopped by SIGTERM")

    def work(member: Member) -> str:
        fleet = ready(servers[0], limits=replace(QUICK, request_seconds=60)) if member.rank == 0 else None
        generator = ServerGenerator(fleet, Leaving(member.rank, member.table), [0])
        with pytest.raises(StoppedError) as error:
            generator.answer(share(member.rank), ANSWERS)
        return str(error.value)

    assert on_every_rank(2, work) == ["stopped by SIGTERM"] * 2


def test_a_prompt_without_tokens_is_refused_on_all_ranks(servers: list[FaultyServer]) -> None:
    def work(member: Member) -> bool:
        generator = ServerGenerator(ready(servers[0]) if member.rank == 0 else None, member, [0])
        with pytest.raises(ValueError, match="no readout position"):
            generator.answer([(1,), ()] if member.rank else [(1,)], ANSWERS)
        return True

    assert on_every_rank(2, work) == [True, True]


def test_answers_carry_the_version_at_which_they_were_asked(servers: list[FaultyServer]) -> None:
    generator = ServerGenerator(ready(servers[0]), ALONE, [0])
    generator.fleet.hold({"run_v3": "/somewhere"}, nothing)  # type: ignore[union-attr]
    generator.adapter, generator.adapter_version = "run_v3", 3
    pending = generator.ask(PROMPTS, ANSWERS)
    generator.adapter, generator.adapter_version = "", 4
    assert pending.result().adapter_version == 3
    assert torch.equal(generator.answer(PROMPTS, ANSWERS).label_logprob_NC, expected(PROMPTS))
    generator.adapter = "run_v3"
    assert torch.equal(generator.answer(PROMPTS, ANSWERS).label_logprob_NC, expected(PROMPTS, "run_v3"))
    assert torch.equal(BaseGenerator(generator).answer(PROMPTS, ANSWERS).label_logprob_NC, expected(PROMPTS))


def test_nobody_asks_anything(servers: list[FaultyServer]) -> None:
    found = ServerGenerator(ready(servers[0]), ALONE, [0]).answer([], ANSWERS)
    assert found.label_logprob_NC.shape == (0, 2) and not servers[0].prompts


def test_a_start_that_fails_on_one_rank_ends_all(servers: list[FaultyServer]) -> None:
    fleet = ready(servers[0], limits=replace(QUICK, request_seconds=0.2))
    servers[0].close()

    def work(member: Member) -> str:
        service = EngineService(fleet if member.rank == 1 else None, member, [1], print)
        service.begin()
        with pytest.raises(AfaError) as error:
            service._together(lambda held: held.wait_ready(nothing))
        return str(error.value)

    said = on_every_rank(3, work)
    assert len(set(said)) == 1 and "no healthy engine answers" in said[0]
