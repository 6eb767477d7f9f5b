"""Versions of an adapter on their way: folders that a killed run left, disks that are full. Engines by a formula."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from faulty_server import FaultyServer, formula
from test_fleet import ready
from test_generator import Member, on_every_rank

from afa_llm.errors import EnginesFailedError
from afa_llm.records import Answers, AnswerWords
from afa_llm.rollouts.adapter_sync import AdapterSync
from afa_llm.rollouts.delivery import Limits
from afa_llm.rollouts.engine_service import EngineService
from afa_llm.rollouts.label_scoring import label_logprobs, score_requests

ANSWERS = AnswerWords(("bad", "good"), ((5,), (6,)))
PROBE = [(1, 2, 3), (4, 5)]


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    made = FaultyServer()
    yield made
    made.close()


def save(folder: Path) -> None:
    folder.mkdir()
    (folder / "weights").write_text("new")


def test_a_version_that_a_killed_run_left_is_written_anew(server: FaultyServer, tmp_path: Path) -> None:
    """It has weights that were lost with the steps after the checkpoint."""
    (tmp_path / "adapters" / "adapter_v3").mkdir(parents=True)
    (tmp_path / "adapters" / "adapter_v3" / "weights").write_text("old")
    sync = AdapterSync(ready(server), save, tmp_path / "adapters")
    sync.put(2, sync.write(2), lambda: None)
    sync.put(3, sync.write(3), lambda: None)
    assert (tmp_path / "adapters" / "adapter_v3" / "weights").read_text() == "new"
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == ["adapter_v3"]
    assert list(server.adapters) == [sync.name]


class Trainer:
    """Answers the probe as the server does."""

    def answer(self, prompts: object, answers: AnswerWords) -> Answers:
        requests = score_requests(PROBE, answers)
        scores = [{token: formula("base", list(r.token_ids), token) for token in r.scored_ids} for r in requests]
        return Answers(label_logprobs(scores, answers), 0)


def connected(member: Member, server: FaultyServer, folder: Path, trainer: Trainer | None = None) -> EngineService:
    """Rank 1 holds the engine."""
    service = EngineService(ready(server) if member.rank == 1 else None, member, [1], lambda _: None)
    service.connect(trainer or Trainer(), nullcontext, nullcontext, save, folder, PROBE, ANSWERS, Limits())
    return service


def test_a_disk_that_is_full_is_the_same_error_on_all_ranks(server: FaultyServer, tmp_path: Path) -> None:
    """Only the rank that holds the engine writes; the others would wait for it until it is missed."""

    def work(member: Member) -> str:
        service = connected(member, server, tmp_path / "adapters")
        if service.sync:
            service.sync.save = full
        with pytest.raises(EnginesFailedError) as error:
            service.deliver(1)
        service.generator.close()
        return str(error.value)

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "weights"))

    said = on_every_rank(2, work)
    assert said == [f"rollouts: {tmp_path}/adapters/.adapter_v1_partial/weights: No space left on device"] * 2


def test_ranks_that_compute_a_little_otherwise_judge_a_delivery_alike(server: FaultyServer, tmp_path: Path) -> None:
    """Their cards may differ, and the gap may lie at the limit: one alone would leave, and the others wait for it."""

    class Another(Trainer):
        def answer(self, prompts: object, answers: AnswerWords) -> Answers:
            found = super().answer(prompts, answers)
            return Answers(found.label_logprob_NC + torch.tensor([0.5, 0.0]), 0)

    def work(member: Member) -> str:
        connected(member, server, tmp_path / "adapters", Another() if member.rank else None).generator.close()
        return "agreed"

    assert on_every_rank(2, work) == ["agreed"] * 2
