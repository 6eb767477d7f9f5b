"""Work spread over engines, with faults to order: every answer once, in order, or a clear end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from faulty_server import BASE, FaultyServer, formula

from afa_llm.errors import AfaError
from afa_llm.rollouts.fleet import Fleet, pieces
from afa_llm.rollouts.label_scoring import ScoreRequest
from afa_llm.rollouts.replica import Limits, Replica
from afa_llm.rollouts.vllm_client import EngineClient

QUICK = Limits(request_seconds=1.0, retries=2, prompts_per_request=4, requests_at_once=2)
REQUESTS = [ScoreRequest((n, 3) + (5,) * (n * 7 % 11), (7, 8) if n % 3 else (9,)) for n in range(30)]


@pytest.fixture
def servers() -> Iterator[list[FaultyServer]]:
    made = [FaultyServer(), FaultyServer()]
    yield made
    for server in made:
        server.close()


def ready(*servers: FaultyServer, limits: Limits = QUICK) -> Fleet:
    fleet = Fleet([Replica(server.client, None, limits, print) for server in servers], limits)
    fleet.begin()
    fleet.wait_ready(nothing)
    return fleet


def nothing() -> None: ...


def right(model: str = BASE) -> list[dict[int, float]]:
    return [
        {token: formula(model, list(request.token_ids), token) for token in request.scored_ids} for request in REQUESTS
    ]


def test_answers_come_in_the_order_asked_and_the_load_is_spread(servers: list[FaultyServer]) -> None:
    assert ready(*servers).score(REQUESTS, "", nothing) == right()
    shares = [server.prompts.total() for server in servers]
    assert sum(shares) == len(REQUESTS) and min(shares) > 0


def test_pieces_hold_each_request_once_and_ask_about_the_same_tokens() -> None:
    found = pieces(REQUESTS, 4)
    assert sorted(index for piece in found for index in piece) == list(range(30))
    assert all(len({REQUESTS[index].scored_ids for index in piece}) == 1 and len(piece) <= 4 for piece in found)


@pytest.mark.parametrize("fault", ["500", "lose", "other model", "missing", "twice", "nan", "hang"])
def test_a_fault_is_retried_and_no_answer_is_lost_or_counted_twice(servers: list[FaultyServer], fault: str) -> None:
    fleet = ready(servers[0])
    servers[0].faults.extend([fault] * 2)
    assert fleet.score(REQUESTS, "", nothing) == right()
    assert not servers[0].faults


@pytest.mark.parametrize(
    ("fault", "reason"), [("500", "status 500"), ("lose", "Remote"), ("other model", "answered by 'another'")]
)
def test_a_fault_that_stays_ends_with_its_reason(servers: list[FaultyServer], fault: str, reason: str) -> None:
    fleet = ready(servers[0])
    servers[0].faults.extend([fault] * 100)
    with pytest.raises(AfaError, match=rf"rollouts.retries = 2: a request failed once more: .*{reason}"):
        fleet.score(REQUESTS, "", nothing)
    assert servers[0].calls["/v1/completions"] <= 2 * 3 + 2  # two threads, three tries of a piece


def test_the_other_engine_takes_over_where_one_is_gone(servers: list[FaultyServer]) -> None:
    limits = replace(QUICK, request_seconds=0.3, retries=5)
    fleet = ready(*servers, limits=limits)
    servers[0].close()
    assert fleet.score(REQUESTS, "", nothing) == right()
    assert servers[1].prompts.total() == len(REQUESTS)


def test_one_dead_engine_fails_a_request_once_not_once_for_each_of_its_threads(servers: list[FaultyServer]) -> None:
    for _ in range(5):
        fleet = ready(*servers, limits=replace(QUICK, request_seconds=5, retries=1, requests_at_once=8))
        fleet.replicas[0].client = EngineClient("http://127.0.0.1:9")  # nobody listens there
        assert fleet.score(REQUESTS, "", nothing) == right()


def test_an_engine_that_is_gone_is_waited_for_once_not_once_by_each_of_its_threads(servers: list[FaultyServer]) -> None:
    fleet = ready(servers[0], limits=replace(QUICK, request_seconds=1, retries=50, requests_at_once=8))
    servers[0].close()
    began = time.monotonic()
    with pytest.raises(AfaError, match=r"rollouts.addresses: no healthy engine answers"):
        fleet.score(REQUESTS, "", nothing)
    assert time.monotonic() - began < 4  # 8 in turn would take 8


def test_no_engine_left_is_an_end_with_a_reason(servers: list[FaultyServer]) -> None:
    fleet = ready(servers[0], limits=replace(QUICK, request_seconds=0.3, retries=50))
    servers[0].close()
    with pytest.raises(AfaError, match=r"rollouts.addresses: no healthy engine answers at http://127"):
        fleet.score(REQUESTS, "", nothing)


def test_who_leaves_is_not_kept_waiting(servers: list[FaultyServer]) -> None:
    fleet = ready(servers[0], limits=replace(QUICK, request_seconds=60))
    servers[0].faults.extend(["hang"] * 2)

    def leave() -> None:
        raise AfaError("stopped")

    began = time.monotonic()
    with pytest.raises(AfaError, match="stopped"):
        fleet.score(REQUESTS, "", leave)
    assert time.monotonic() - began < 30  # the request itself would take 60


def test_nothing_asked_nothing_sent(servers: list[FaultyServer]) -> None:
    assert ready(servers[0]).score([], "", nothing) == []
    assert not servers[0].prompts


def test_adapters_are_held_exactly_and_the_new_one_comes_first(servers: list[FaultyServer]) -> None:
    fleet = ready(*servers)
    for version in (1, 2):
        fleet.hold({f"run_v{version}": "/somewhere"}, nothing)
        assert fleet.score(REQUESTS, f"run_v{version}", nothing) == right(f"run_v{version}")
    assert all(list(server.adapters) == ["run_v2"] for server in servers)


def test_others_adapters_are_left_alone(servers: list[FaultyServer]) -> None:
    servers[0].adapters["theirs"] = "/theirs"
    fleet = ready(servers[0])
    fleet.hold({"ours": "/ours"}, nothing)
    fleet.close()
    assert servers[0].adapters == {"theirs": "/theirs"}


@pytest.mark.parametrize("fault", ["lose", "500"])
def test_a_lost_reply_to_loading_does_no_harm(servers: list[FaultyServer], fault: str) -> None:
    fleet = ready(servers[0])
    servers[0].faulty_path = "/v1/load_lora_adapter"
    servers[0].faults.append(fault)
    fleet.hold({"run_v1": "/somewhere"}, nothing)
    assert servers[0].adapters == {"run_v1": "/somewhere"} and not servers[0].faults


def test_an_engine_that_refuses_the_adapter_ends_the_run(servers: list[FaultyServer]) -> None:
    with pytest.raises(
        AfaError, match=r"the engine refuses the adapter: .*already loaded, or no path.*start the engine"
    ):
        ready(servers[0]).hold({"run_v1": ""}, nothing)


def test_a_reply_that_is_lost_while_an_engine_says_what_it_serves_is_asked_for_again(
    servers: list[FaultyServer],
) -> None:
    servers[0].faulty_path = "/v1/models"
    servers[0].faults.extend(["500", "lose"])
    fleet = ready(servers[0])
    assert not servers[0].faults
    servers[0].faults.extend(["500", "500"])
    fleet.replicas[0].base_model = "forgotten"  # the engine says 404, and is asked anew
    assert fleet.score(REQUESTS, "", nothing) == right()


def test_an_engine_that_scores_other_tokens_is_told_as_one_of_another_version(
    servers: list[FaultyServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vLLM does that takes `logprob_token_ids` for a field of no meaning."""
    fleet = ready(servers[0])
    answer = servers[0]._formula

    def older(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return answer(path, {name: [91, 92] if name == "logprob_token_ids" else body[name] for name in body})

    monkeypatch.setattr(servers[0], "_formula", older)
    with pytest.raises(AfaError, match=r"no score of tokens \[.*only of \[91, 92\].*such as 0.32"):
        fleet.score(REQUESTS, "", nothing)


def test_an_engine_that_is_ill_says_why(servers: list[FaultyServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers[0], "_answer", lambda *_: (503, {"detail": "no workers"}))
    with pytest.raises(AfaError, match=r"no healthy engine answers at http://\S*/health: status 503: .*no workers"):
        ready(servers[0], limits=replace(QUICK, request_seconds=0.2))


def test_an_engine_without_a_model_is_told(servers: list[FaultyServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers[0], "_answer", lambda *_: (200, {"data": []}))
    with pytest.raises(AfaError, match=r"rollouts.addresses: the engine at http://\S* serves no model"):
        ready(servers[0])


def test_an_engine_that_lost_its_adapter_gets_it_again(servers: list[FaultyServer]) -> None:
    fleet = ready(servers[0])
    fleet.hold({"run_v1": "/somewhere"}, nothing)
    servers[0].adapters.clear()  # as if it had been started again
    assert fleet.score(REQUESTS, "run_v1", nothing) == right("run_v1")


def test_a_fault_of_ours_reaches_the_caller(servers: list[FaultyServer], monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = ready(servers[0])

    def broken(*_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(EngineClient, "score", broken)
    with pytest.raises(KeyError, match="ours"):
        fleet.score(REQUESTS, "", nothing)
    assert threading.active_count() < 20


@pytest.mark.parametrize("reply", ["<html>", {}, {"data": None}, {"data": ["base"]}])
def test_an_address_where_something_else_answers_is_told(
    servers: list[FaultyServer], monkeypatch: pytest.MonkeyPatch, reply: object
) -> None:
    """A proxy, or another program, that says yes to everything."""
    monkeypatch.setattr(servers[0], "_answer", lambda *_: (200, reply))
    with pytest.raises(AfaError, match=r"the engine does not say what it serves: .*/v1/models: no list of models"):
        ready(servers[0])
