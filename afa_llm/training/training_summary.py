"""What a run of training did, in numbers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainingSummary:
    """What a run of training did. `alarms`: of the adversary at the end, and whether the attention sink
    drained on the way.

    `seconds`: of training since step 0, whatever was stopped and resumed; what a crash threw away is not in it.

    `adapter_step`: after which step the weights stood that are the result.

    `forward_tokens`, `backward_tokens`: that went through the decoder in training, over all ranks and since step 0,
    validation and proofs of delivery left out. `flops`: from them, by the formula in models/pass_tokens.py.
    """

    steps: int
    adapter_step: int
    reviews: int
    seconds: float
    skipped_steps: int
    resumed_from: int
    last_metrics: dict[str, float]
    alarms: tuple[str, ...]
    forward_tokens: int
    backward_tokens: int
    flops: float


@dataclass(frozen=True)
class Skips:
    """Steps that were not taken because a gradient was not finite."""

    total: int = 0
    in_a_row: int = 0

    def after(self, applied: bool) -> Skips:
        return Skips(self.total + (not applied), 0 if applied else self.in_a_row + 1)


@dataclass
class Stopwatch:
    """Wall time of training. `earlier`: seconds until the checkpoint that a resumed run goes on from."""

    earlier: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        self.began = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.began
