"""All that a rank does for the engines of a job: have them started, put adapters into them, prove it, end them.

Every method is called on all ranks together. What only a rank with engines does is tried there, and its failure told
to all: they raise the same error.

Legend: N probe prompts, C labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import torch

from afa_llm.errors import AfaError
from afa_llm.records import AnswerWords
from afa_llm.rollouts.adapter_sync import AdapterSync
from afa_llm.rollouts.delivery import DeliveryProof, Limits
from afa_llm.rollouts.fleet import Engines
from afa_llm.rollouts.generator import Generator, Team, known_to_all
from afa_llm.rollouts.label_scoring import label_logprobs, score_requests
from afa_llm.rollouts.vllm_server import ServerGenerator

Given = TypeVar("Given")


class EngineService:
    """`fleet`: this rank's engines, begun but perhaps not ready; None where it holds none."""

    def __init__(self, fleet: Engines | None, team: Team, holders: Sequence[int], tell: Callable[[str], None]) -> None:
        self.fleet, self.team, self.tell = fleet, team, tell
        self.generator = ServerGenerator(fleet, team, holders)
        self.folder: Path | str = "engine"
        self.sync: AdapterSync | None = None
        self.proofs: list[DeliveryProof] = []
        self.version = -1

    def begin(self) -> None:
        """Start the engines that are ours, without waiting for them."""
        self._together(lambda fleet: fleet.begin())

    def connect(
        self,
        trainer: Generator,
        base: Callable[[], AbstractContextManager[None]],
        whole: Callable[[], AbstractContextManager[None]],
        save: Callable[[Path], None],
        folder: Path,
        probe: Sequence[Sequence[int]],
        answers: AnswerWords,
        limits: Limits,
    ) -> None:
        """Wait until the engines answer, and compare the base on both sides. Raises AfaError on all ranks.

        `trainer` answers on this side, by the base inside `base()`. Inside `whole()` the adapter's weights are whole
        and `save` can write them; `folder` holds its versions. `probe`: prompts that every version is proved with.
        """
        self._together(lambda fleet: fleet.wait_ready(self.team.beat))
        self.trainer, self.whole, self.save, self.folder = trainer, whole, save, folder
        self.probe, self.answers = probe, answers
        if self.fleet:
            self.sync = AdapterSync(self.fleet, save, folder)
        with base():
            ours_NC = self._ours()
        self.proofs = [DeliveryProof(ours_NC, theirs_NC, limits, at) for at, theirs_NC in self._theirs("")]
        self.tell(f"engine and trainer on the base: mean |Δp| {max(proof.base.mean for proof in self.proofs):.2g}")

    def deliver(self, version: int) -> dict[str, float]:
        """Put the adapter, as the trainer has it now, into all engines and prove that it arrived.

        Returns what to log: `delivery_gap` (mean |Δp|, of the engine where it is largest), `sync_seconds`. Raises
        EnginesFailedError or StoppedError on all ranks.
        """
        assert self.proofs
        began = time.monotonic()
        with self.whole():
            folder = self._together(lambda _: self.sync.write(version) if self.sync else None)
        name = self._together(lambda _: self.sync.put(version, folder, self.team.beat) if self.sync and folder else "")
        self.generator.adapter = name or ""
        self.generator.adapter_version = self.version = version
        seconds = time.monotonic() - began
        ours_NC = self._ours()
        gaps = []
        for proof, (address, theirs_NC) in zip(self.proofs, self._theirs(self.generator.adapter), strict=True):
            proof.address = address
            found = proof.check(version, ours_NC, theirs_NC)
            gaps.append(found.mean)
            if warning := proof.warning(found):
                self.tell(warning)
        return {"delivery_gap": max(gaps), "sync_seconds": seconds}

    def _ours(self) -> torch.Tensor:
        """The trainer's answers to the probe, those of rank 0 on all ranks: on another card they may differ in the last
        bits, and a gap at the limit would be too large on some ranks alone, which would leave the others waiting."""
        found: torch.Tensor = self.team.gather(self.trainer.answer(self.probe, self.answers).label_logprob_NC)[0]
        return found

    def _theirs(self, adapter: str) -> list[tuple[str, torch.Tensor]]:
        """Address and answers to the probe of every engine of every rank. Each answers all of it: spread over them, as
        the prompts of a round are, so few prompts would prove one."""
        requests = score_requests(self.probe, self.answers)

        def ask(fleet: Engines) -> list[tuple[str, torch.Tensor]]:
            return [
                (address, label_logprobs(engine.score(requests, adapter, self.team.beat), self.answers))
                for address, engine in fleet.each().items()
            ]

        return [each for part in self.team.gather(self._together(ask)) for each in part or ()]

    def close(self) -> None:
        """End our engines and take our adapters from others'. On this rank alone; safe after any failure."""
        self.generator.close()
        if self.fleet:
            self.fleet.close()
        if self.sync:
            self.sync.close()

    def _together(self, work: Callable[[Engines], Given]) -> Given | None:
        """`work` on the ranks with engines. Raises the first error on all ranks, as `known_to_all` words it."""
        given: Given | None = None
        error: AfaError | None = None
        if self.fleet:
            try:
                given = work(self.fleet)
            except AfaError as failure:
                error = failure
            except OSError as failure:  # the adapter's folder, an engine's log: the others wait for a word
                error = AfaError(f"rollouts: {failure.filename or self.folder}: {failure.strerror or failure}")
                error.__cause__ = failure
        for each in self.team.gather(error):
            if each is not None:
                raise known_to_all(each)
        return given
