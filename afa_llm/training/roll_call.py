"""Who of the ranks was last heard of when, where it stood, and who is to blame when nothing moves.

Pure bookkeeping over heartbeats: no threads, no sockets, the time is given. Producer of beats and consumer of
verdicts: watchdog.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Beat:
    """What a rank says of itself. `count` grows with each beat, `moves` with each piece of work its main thread did."""

    rank: int
    host: str
    space: str  # the process ids' namespace: containers of one host number their processes alike
    pid: int
    count: int
    moves: int
    step: int
    phase: str
    stop: str = ""

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def load(data: bytes) -> Beat:
        return Beat(**json.loads(data))

    def place(self) -> str:
        """Such as: rank 1 (host node7, pid 4711), last heard of in phase training, step 12."""
        where = f"step {self.step}" if self.phase == "training" else "no step of training"
        return f"rank {self.rank} (host {self.host}, pid {self.pid}), last heard of in phase {self.phase}, {where}"


class RollCall:
    """Beats by rank, with the local time at which each last changed. `silence`, `standstill`: seconds allowed."""

    def __init__(self, silence: float, standstill: float) -> None:
        self.silence, self.standstill = silence, standstill
        self.beats: dict[int, Beat] = {}
        self.heard: dict[int, float] = {}
        self.moved: dict[int, float] = {}

    def hear(self, beats: Sequence[Beat], now: float) -> None:
        """Take in the newest beats."""
        for beat in beats:
            before = self.beats.get(beat.rank)
            if before is None or beat.count != before.count:
                self.heard[beat.rank] = now
            if before is None or beat.moves != before.moves:
                self.moved[beat.rank] = now
            self.beats[beat.rank] = beat

    def forgive(self, seconds: float) -> None:
        """This process did not run for so long (stopped and continued, a machine asleep): nobody else is to blame."""
        for times in (self.heard, self.moved):
            for rank in times:
                times[rank] += seconds

    def asked_to_stop(self) -> str:
        """The reason for which any rank was asked to stop, or nothing."""
        return next((beat.stop for beat in self.beats.values() if beat.stop), "")

    def silent(self, now: float, allowed: float | None = None) -> list[Beat]:
        """Ranks that were not heard of for longer than allowed."""
        limit = self.silence if allowed is None else allowed
        return [self.beats[rank] for rank, at in sorted(self.heard.items()) if now - at > limit]

    def standing(self, now: float) -> list[Beat]:
        """The ranks furthest behind where no rank's main thread has moved for too long; none while any moves.

        Ranks that wait for others in a collective have done more than those they wait for.
        """
        if not self.moved or any(now - at <= self.standstill for at in self.moved.values()):
            return []
        least = min(beat.moves for beat in self.beats.values())
        return [beat for rank, beat in sorted(self.beats.items()) if beat.moves == least]
