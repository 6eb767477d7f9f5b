"""Of several engines one may serve another base, or hold an adapter without using it. Engines by a formula."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from faulty_server import BASE, FaultyServer, formula
from test_adapter_sync import ANSWERS, PROBE, save
from test_fleet import ready

from afa_llm.errors import AfaError, EnginesFailedError
from afa_llm.records import Answers, AnswerWords
from afa_llm.rollouts.delivery import Limits
from afa_llm.rollouts.engine_service import EngineService
from afa_llm.rollouts.generator import ALONE
from afa_llm.rollouts.vllm_client import MARK


class Deaf(FaultyServer):
    """Takes adapters and answers by the base."""

    def _formula(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path != "/v1/completions":
            return super()._formula(path, body)
        status, reply = super()._formula(path, body | {"model": BASE})
        return status, reply | {"model": body["model"]}


class Other(FaultyServer):
    """Serves another base."""

    def _formula(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        status, reply = super()._formula(path, body)
        for choice in reply["choices"] if path == "/v1/completions" else []:
            choice["logprobs"]["top_logprobs"][0][f"{MARK}5"] += 1
        return status, reply


class Trainer:
    """Answers as the good server does by a model of this name."""

    model = BASE

    def answer(self, prompts: object, answers: AnswerWords) -> Answers:
        return Answers(torch.tensor([[formula(self.model, list(ids), token) for token in (5, 6)] for ids in PROBE]), 0)


@pytest.fixture(params=[0, 1], ids=["first", "second"])
def place(request: pytest.FixtureRequest) -> int:
    """Where among the two the odd one stands."""
    return int(request.param)


@pytest.fixture
def good() -> Iterator[FaultyServer]:
    made = FaultyServer()
    yield made
    made.close()


def service_of(good: FaultyServer, odd: FaultyServer, place: int, trainer: Trainer, folder: Path) -> EngineService:
    fleet = ready(*((odd, good) if place == 0 else (good, odd)))
    service = EngineService(fleet, ALONE, [0], lambda _: None)
    service.connect(trainer, nullcontext, nullcontext, save, folder, PROBE, ANSWERS, Limits())
    return service


def test_an_engine_that_does_not_use_the_adapter_is_found(good: FaultyServer, place: int, tmp_path: Path) -> None:
    odd, trainer = Deaf(), Trainer()
    service = service_of(good, odd, place, trainer, tmp_path / "adapters")
    trainer.model = f"{service.sync.run}_v1"  # type: ignore[union-attr]
    with pytest.raises(EnginesFailedError, match=f"did not arrive at {odd.client.address}: .* answers like the base"):
        service.deliver(1)
    odd.close()


def test_an_engine_that_serves_another_base_is_found(good: FaultyServer, place: int, tmp_path: Path) -> None:
    odd = Other()
    with pytest.raises(AfaError, match=f"engine at {odd.client.address} and trainer disagree on the base itself"):
        service_of(good, odd, place, Trainer(), tmp_path / "adapters")
    odd.close()


def test_engines_that_agree_are_no_alarm(good: FaultyServer, tmp_path: Path) -> None:
    second, trainer = FaultyServer(), Trainer()
    service = service_of(good, second, 1, trainer, tmp_path / "adapters")
    trainer.model = f"{service.sync.run}_v1"  # type: ignore[union-attr]
    assert service.deliver(1)["delivery_gap"] < 1e-6
    assert set(good.prompts) == set(second.prompts) == set(PROBE)
    second.close()
