"""Answers of a real server against those of the decoder in this process, base and adapter.

Legend: N prompts, C labels.
"""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from needs import needs_vllm
from real_engine import SEVERAL, SINGLE, Side, connected, foreign_replica, own_replica, prompts
from test_generator import on_every_rank

from afa_llm.errors import AfaError
from afa_llm.records import AnswerWords
from afa_llm.rollouts.delivery import Limits as ProbeLimits
from afa_llm.rollouts.fleet import Fleet
from afa_llm.rollouts.generator import ALONE
from afa_llm.rollouts.replica import Replica
from afa_llm.rollouts.vllm_client import EngineClient, EngineRefusalError
from afa_llm.rollouts.vllm_server import ServerGenerator

pytestmark = [pytest.mark.vllm, needs_vllm]
CLOSE = 1e-5  # worst case measured: 5.8e-6


def fleet_of(*replicas: Replica) -> Fleet:
    return Fleet(replicas, replicas[0].limits)


@pytest.mark.parametrize("answers", [SINGLE, SEVERAL], ids=["single", "several"])
def test_the_base_answers_as_in_this_process(engine: Replica, side: Side, answers: AnswerWords) -> None:
    found = ServerGenerator(fleet_of(engine), ALONE, [0]).answer(prompts(), answers)
    expected = side.generator.answer(prompts(), answers).label_logprob_NC
    assert found.label_logprob_NC.dtype == torch.float32 and found.adapter_version == 0
    print("base:", float((found.label_logprob_NC - expected).abs().max()))
    assert (found.label_logprob_NC - expected).abs().max() < CLOSE


@pytest.mark.parametrize("answers", [SINGLE, SEVERAL], ids=["single", "several"])
def test_each_version_of_the_adapter_answers_as_in_this_process(
    engine: Replica, side: Side, answers: AnswerWords, tmp_path: Path
) -> None:
    service = connected(fleet_of(engine), side, tmp_path, ProbeLimits())
    last = torch.zeros(1)
    for version in (1, 2, 5):
        side.move(version)
        logged = service.deliver(version)
        found = service.generator.answer(prompts(), answers)
        expected = side.generator.answer(prompts(), answers).label_logprob_NC
        print("adapter:", version, float((found.label_logprob_NC - expected).abs().max()), logged)
        assert (found.label_logprob_NC - expected).abs().max() < CLOSE
        assert (expected - last).abs().max() > 0.1 and found.adapter_version == version
        assert logged["delivery_gap"] < 1e-5
        last = expected
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_v5"]
    held = engine.client.models()
    assert sorted(held) == sorted([engine.base_model, service.generator.adapter])
    base = service.generator.ask(prompts(), answers, base=True).result().label_logprob_NC
    with side.decoder.base():
        assert (base - side.generator.answer(prompts(), answers).label_logprob_NC).abs().max() < CLOSE


def test_ranks_ask_together_and_each_gets_its_own_answers(engine: Replica, side: Side) -> None:
    every = prompts(12)

    def work(member):  # type: ignore[no-untyped-def]
        mine = every[member.rank * 3 : member.rank * 3 + 5]  # overlapping, of other lengths on the last rank
        fleet = fleet_of(engine) if member.rank in (0, 2) else None
        generator = ServerGenerator(fleet, member, [0, 2])
        return generator.answer(mine, SINGLE).label_logprob_NC

    expected = side.generator.answer(every, SINGLE).label_logprob_NC
    for rank, found in enumerate(on_every_rank(4, work)):
        assert (found - expected[rank * 3 : rank * 3 + 5]).abs().max() < CLOSE


def test_the_server_listens_on_loopback_and_wants_its_token(engine: Replica) -> None:
    place = urlsplit(engine.client.address)
    assert place.hostname == "127.0.0.1"
    for token in ("", "wrong"):
        with pytest.raises(EngineRefusalError, match="status 401"):
            EngineClient(engine.client.address, token).models()
    connection = http.client.HTTPConnection("127.0.0.1", place.port or 0, timeout=10)
    connection.request("POST", "/v1/load_lora_adapter", json.dumps({"lora_name": "x", "lora_path": "/"}), {})
    assert connection.getresponse().status == 401
    assert engine.process
    command = Path(f"/proc/{engine.process._guard.pid}/cmdline").read_bytes()  # type: ignore[union-attr]
    assert engine.client.token.encode() not in command
    assert engine.client.token not in engine.process.log.read_text()


def test_the_users_engine_is_used_by_address_and_token(engine: Replica, side: Side, tmp_path: Path) -> None:
    replica, served = foreign_replica(engine.client), list(engine.client.models())
    replica.begin()
    replica.wait_ready(lambda: None)
    service = connected(Fleet([replica], replica.limits), side, tmp_path / "adapters")
    side.move(7)
    service.deliver(1)
    assert service.generator.adapter in engine.client.models()
    service.close()
    assert list(engine.client.models()) == served  # it goes on without our adapter
    assert not list(tmp_path.iterdir())


def test_a_request_that_is_refused_ends_with_its_reason(engine: Replica) -> None:
    generator = ServerGenerator(fleet_of(engine), ALONE, [0])
    with pytest.raises(AfaError, match=r"refuses a request.*maximum context length"):
        generator.answer([[1] * 400], SINGLE)
    assert generator.answer([[1, 5]], SINGLE).label_logprob_NC.shape == (1, 2)


def test_a_caller_that_leaves_does_not_have_its_engine_started_again(log: Path) -> None:
    replica = own_replica(log)
    replica.begin()
    replica.wait_ready(lambda: None)
    generator = ServerGenerator(fleet_of(replica), ALONE, [0])
    pending = generator.ask(prompts(200), SINGLE)
    time.sleep(0.3)
    generator.close()
    replica.close()
    assert pending._future and isinstance(pending._future.result(30), AfaError)
    assert replica.births == 1 and replica.process and replica.process.ended
