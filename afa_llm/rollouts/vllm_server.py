"""Prompts answered by engines behind HTTP, for all ranks of a job at once.

The ranks lay their prompts together; each distinct prompt is asked once, spread over the ranks that hold engines
(one for each node, or one for all); every rank gets the answers to its own. All communication between ranks is in `ask`
and `result`, on the main thread and in the same order everywhere; what waits for an engine is a thread of the rank that
holds it. So an engine's failure reaches all ranks as the same error, and none waits for another that has left.

Legend: N prompts, C labels.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch

from afa_llm.errors import AfaError
from afa_llm.records import Answers, AnswerWords
from afa_llm.rollouts.fleet import Engines
from afa_llm.rollouts.generator import Team, known_to_all
from afa_llm.rollouts.label_scoring import label_logprobs, score_requests
from afa_llm.rollouts.replica import LOOK_SECONDS

Part = torch.Tensor | AfaError
"""What a rank that holds engines found for its share of the prompts [M, C], or why it found nothing."""


class ServerGenerator:
    """Answers by one adapter, or by the base where `adapter` is empty. Every rank of the team must ask in step.

    `fleet`: this rank's engines; None where other ranks hold them. `holders`: the ranks that hold some.
    """

    def __init__(self, fleet: Engines | None, team: Team, holders: Sequence[int]) -> None:
        self.fleet, self.team, self.holders = fleet, team, tuple(holders)
        self.adapter, self.adapter_version = "", 0
        self._worker = ThreadPoolExecutor(1, "engine") if fleet else None
        self._closed = threading.Event()

    def answer(self, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> Answers:
        """As in `Generator`. Raises AfaError on all ranks where an engine fails for good."""
        return self.ask(prompts, answers).result()

    def ask(self, prompts: Sequence[Sequence[int]], answers: AnswerWords, *, base: bool = False) -> Pending:
        """Have prompts answered while this rank goes on; `result` of what is returned waits for the answers.

        `base`: by the base instead of the adapter. Raises ValueError for a prompt without tokens, on all ranks.
        """
        everyone = self.team.gather([tuple(prompt) for prompt in prompts])
        distinct = list(dict.fromkeys(prompt for mine in everyone for prompt in mine))
        if () in distinct:
            raise ValueError("a prompt has no tokens: it has no readout position")
        stop, future = threading.Event(), None
        if self.fleet and self._worker:
            share = distinct[self.holders.index(self.team.rank) :: len(self.holders)]
            adapter = "" if base else self.adapter
            future = self._worker.submit(self._score, self.fleet, share, answers, adapter, stop)
        return Pending(self, everyone[self.team.rank], distinct, len(answers.labels), future, stop)

    def rest(self) -> None:
        """As in `AskableGenerator`. Nothing may be on its way. Raises AfaError, on this rank alone, where an engine in
        this process fails."""
        if self.fleet:
            self.fleet.rest()

    def close(self) -> None:
        """Nobody waits any more for what is under way."""
        self._closed.set()
        if self._worker:
            self._worker.shutdown(wait=False, cancel_futures=True)

    def _score(
        self, fleet: Engines, share: list[tuple[int, ...]], answers: AnswerWords, adapter: str, stop: threading.Event
    ) -> Part:
        """On the engine's thread: no word to other ranks."""

        def beat() -> None:
            if stop.is_set() or self._closed.is_set():
                raise AfaError("rollouts: nobody waits for the answers any more")

        try:
            return label_logprobs(fleet.score(score_requests(share, answers), adapter, beat), answers)
        except AfaError as error:
            return error


@dataclass(frozen=True)
class BaseGenerator:
    """The base below the adapter, answered by the same engines."""

    generator: ServerGenerator

    def answer(self, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> Answers:
        return self.ask(prompts, answers).result()

    def ask(self, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> Pending:
        return self.generator.ask(prompts, answers, base=True)

    def rest(self) -> None:
        self.generator.rest()


class Pending:
    """Answers on their way. `result` must be called on every rank, in the order of the asking."""

    def __init__(
        self,
        generator: ServerGenerator,
        prompts: Sequence[tuple[int, ...]],
        distinct: list[tuple[int, ...]],
        labels: int,
        future: Future[Part] | None,
        stop: threading.Event,
    ) -> None:
        self.generator, self.prompts, self.distinct, self.labels = generator, prompts, distinct, labels
        self.version = generator.adapter_version
        self._future, self._stop = future, stop

    def result(self) -> Answers:
        """Waits for the engines. Raises EnginesFailedError or StoppedError on all ranks where one failed, or was asked
        to stop."""
        team, holders = self.generator.team, self.generator.holders
        parts: list[Part | None] = team.gather(self._own_part())
        found: dict[tuple[int, ...], torch.Tensor] = {}
        for place, rank in enumerate(holders):
            part = parts[rank]
            if isinstance(part, AfaError):
                raise known_to_all(part)
            assert part is not None
            found |= zip(self.distinct[place :: len(holders)], part, strict=True)
        rows = [found[prompt] for prompt in self.prompts]
        return Answers(torch.stack(rows) if rows else torch.zeros(0, self.labels), self.version)

    def _own_part(self) -> Part | None:
        if self._future is None:
            return None
        try:
            while not wait([self._future], LOOK_SECONDS / 4).done:
                self.generator.team.beat()
        except AfaError as stopped:  # the others wait for this share
            self._stop.set()
            return stopped
        return self._future.result()
