"""Tells when the attention sink drains: an LLM that loses it answers by chance, and recovers slowly or never.

Most heads of a decoder rest on its first token when they have nothing to say (Xiao et al. 2024, "attention sinks").
Steps that move the attention towards words can take that rest away. Seen once in 21 runs of a 135M model (NOTES.md).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

LINES = 5
"""Logged steps that a level is the mean of."""
LEAST_START = 0.2
"""A model whose readout never rested on its first token has no sink to lose."""
DRAINED = 1 / 3
"""Of the level at the start. Tuning on cross-entropy alone left half of it and more. All three: our choice."""


class SinkWatch:
    """Sees `sink_mass` of each logged step; `alarm` is what it found, empty so far.

    `state`: of a watch that this one goes on from. A resumed run must not take its own first steps for the start: the
    sink may have drained before.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self.alarm = str(state.get("alarm", ""))
        self._start: list[float] = [float(level) for level in state.get("start", [])]
        self._recent: deque[float] = deque((float(level) for level in state.get("recent", [])), maxlen=LINES)

    def state(self) -> dict[str, Any]:
        """What another watch needs to go on from here, for a JSON file."""
        return {"alarm": self.alarm, "start": self._start, "recent": list(self._recent)}

    def see(self, sink_mass: float, step: int) -> str:
        """The alarm where this step is the first to sound it, else nothing. A step that is no number is passed over."""
        if not math.isfinite(sink_mass):
            return ""
        self._recent.append(sink_mass)
        if len(self._start) < LINES:
            self._start.append(sink_mass)
        start, now = (sum(levels) / len(levels) for levels in (self._start, self._recent))
        if self.alarm or start < LEAST_START or now > DRAINED * start:
            return ""
        self.alarm = (
            f"attention sink drained by step {step}: the first token's share of the readout's attention fell from "
            f"{start:.2f} to {now:.2f}, and such a model may answer by chance; lower training.learning_rate or "
            "objective.policy_gradient_weight, or hold it by objective.word_mass_weight=1"
        )
        return self.alarm
