"""Several engines that share what is asked: load spread, failures retried within bounds, each answer counted once."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Protocol

from afa_llm.errors import AfaError
from afa_llm.rollouts.label_scoring import ScoreRequest, Scores
from afa_llm.rollouts.replica import LOOK_SECONDS, Beat, Limits, Replica
from afa_llm.rollouts.vllm_client import EngineFailureError, EngineRefusalError


class Engines(Protocol):
    """Engines with the same base, wherever they run: servers (`Fleet`), or one in this process (vllm_local)."""

    def begin(self) -> None: ...

    def wait_ready(self, beat: Beat) -> None: ...

    def hold(self, adapters: dict[str, str], beat: Beat) -> None: ...

    def score(self, requests: Sequence[ScoreRequest], adapter: str, beat: Beat) -> list[Scores]: ...

    def each(self) -> dict[str, Engines]:
        """Every engine by itself, by its address: what is asked of one is answered by no other."""
        ...

    def rest(self) -> None:
        """Give memory that is shared with the trainer back until the next question."""
        ...

    def close(self) -> None: ...


class Fleet:
    """Servers with the same base. One caller at a time."""

    def __init__(self, replicas: Sequence[Replica], limits: Limits) -> None:
        self.replicas, self.limits = list(replicas), limits

    def begin(self) -> None:
        """Start all processes of ours; `wait_ready` tells when they answer."""
        for replica in self.replicas:
            replica.begin()

    def wait_ready(self, beat: Beat) -> None:
        for replica in self.replicas:
            replica.wait_ready(beat)

    def hold(self, adapters: dict[str, str], beat: Beat) -> None:
        """Every engine holds exactly these adapters afterwards (name -> folder). Raises AfaError."""
        for replica in self.replicas:
            replica.hold(adapters, beat)

    def score(self, requests: Sequence[ScoreRequest], adapter: str, beat: Beat) -> list[Scores]:
        """Scores in the order of the requests, by the adapter of this name, or by the base where it is empty.

        Raises AfaError where a request fails for good or no engine is left, and whatever `beat` raises.
        """
        work = Work(requests, self.limits)
        threads = [
            threading.Thread(target=self._serve, args=(replica, work, adapter), daemon=True)
            for replica in self.replicas
            for _ in range(min(self.limits.requests_at_once, len(work.waiting)))
        ]
        work.hands = len(threads)
        for thread in threads:
            thread.start()
        try:
            while not work.over.wait(LOOK_SECONDS / 4):
                beat()
        finally:
            work.end()
        return work.result()

    def each(self) -> dict[str, Engines]:
        return {replica.client.address: Fleet([replica], self.limits) for replica in self.replicas}

    def rest(self) -> None:
        """Servers have memory of their own."""

    def close(self) -> None:
        for replica in self.replicas:
            replica.close()

    def _serve(self, replica: Replica, work: Work, adapter: str) -> None:
        """One of an engine's threads: takes pieces of the work until none is left or the engine can't be mended."""
        reason = ""
        try:
            while (piece := work.take(replica)) is not None:
                birth = replica.births
                asked = [work.requests[index] for index in piece]
                try:
                    model = adapter or replica.base_model
                    work.put(piece, replica.client.score(asked, model, self.limits.request_seconds))
                except (EngineFailureError, EngineRefusalError) as failure:
                    work.give_back(piece, failure, replica)
                    with work.mending(replica) as check:
                        replica.mend(birth, failure, check)
        except WorkOverError:
            pass
        except AfaError as error:
            reason = str(error)
        except BaseException as error:  # a fault of ours must not leave the caller waiting
            work.fail(error)
        finally:
            work.leave(reason)


class WorkOverError(Exception):
    """Nobody wants the work of a thread any more: it is done, has failed, the caller left, or the engine is lost."""


class Work:
    """Requests in pieces, between the threads that have them answered.

    A piece is with one thread, or waiting, or answered; an answer is laid down at the index of its request. While an
    engine is mended none of its threads takes a piece: each would fail it once more.
    """

    def __init__(self, requests: Sequence[ScoreRequest], limits: Limits) -> None:
        self.requests, self.retries = requests, limits.retries
        self.waiting = deque(pieces(requests, limits.prompts_per_request))
        self.scores: dict[int, Scores] = {}
        self.failures: Counter[int] = Counter()  # by the first index of a piece
        self.error: BaseException | None = None
        self.over = threading.Event()
        self.hands = 0
        self._mending: Counter[Replica] = Counter()  # threads that are at it
        self._lost: set[Replica] = set()
        self._reason = ""  # of the newest loss
        self._changed = threading.Condition()
        if not requests:
            self.over.set()

    def take(self, engine: Replica) -> tuple[int, ...] | None:
        """The next piece for this engine; None when all is answered, failed or not wanted, or the engine is lost.

        Waits while others may give one back, and while the engine is mended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_over(engine) or (self.waiting and not self._mending[engine]))
            return None if self._is_over(engine) else self.waiting.popleft()

    def put(self, piece: tuple[int, ...], scores: Sequence[Scores]) -> None:
        with self._changed:
            self.scores.update(zip(piece, scores, strict=True))
            if len(self.scores) == len(self.requests):
                self._end()

    def give_back(
        self, piece: tuple[int, ...], failure: EngineFailureError | EngineRefusalError, engine: Replica
    ) -> None:
        """For another try; `mending` follows. Fails the work where it was refused for good or tried too often."""
        with self._changed:
            self._mending[engine] += 1
            self.failures[piece[0]] += 1
            self.waiting.appendleft(piece)
            self._changed.notify_all()
            missing = isinstance(failure, EngineRefusalError) and failure.status == 404  # it lost its adapter
            if isinstance(failure, EngineRefusalError) and not missing:
                self._fail(AfaError(f"rollouts: the engine refuses a request: {failure}"))
            elif self.failures[piece[0]] > self.retries:
                self._fail(AfaError(f"rollouts.retries = {self.retries}: a request failed once more: {failure}"))

    @contextmanager
    def mending(self, engine: Replica) -> Iterator[Beat]:
        """After `give_back`: its engine is mended in the block, or lost where that raises AfaError.

        Gives what to call meanwhile; it raises WorkOverError where there is nothing left to mend for.
        """
        try:
            yield lambda: self._check(engine)
        except AfaError:
            with self._changed:
                self._lost.add(engine)
            raise
        finally:
            with self._changed:
                self._mending[engine] -= 1
                self._changed.notify_all()

    def leave(self, reason: str) -> None:
        """A thread is gone. The last one takes the hope with it."""
        with self._changed:
            self.hands -= 1
            self._reason = reason or self._reason
            if self.hands == 0:
                self._fail(AfaError(self._reason or "rollouts: no engine is left"))

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self._fail(error)

    def end(self) -> None:
        with self._changed:
            self._end()

    def result(self) -> list[Scores]:
        if self.error:
            raise self.error
        return [self.scores[index] for index in range(len(self.requests))]

    def _is_over(self, engine: Replica) -> bool:
        return self.over.is_set() or engine in self._lost

    def _check(self, engine: Replica) -> None:
        if self._is_over(engine):
            raise WorkOverError

    def _fail(self, error: BaseException) -> None:
        if not self.over.is_set():
            self.error = error
        self._end()

    def _end(self) -> None:
        self.over.set()
        self._changed.notify_all()


def pieces(requests: Sequence[ScoreRequest], size: int) -> list[tuple[int, ...]]:
    """Indices of requests that go together: the same tokens asked about, of like length, at most `size`."""
    order = sorted(range(len(requests)), key=lambda i: (requests[i].scored_ids, len(requests[i].token_ids), i))
    return [
        tuple(alike[at : at + size])
        for _, group in groupby(order, key=lambda i: requests[i].scored_ids)
        for alike in [list(group)]
        for at in range(0, len(alike), size)
    ]
