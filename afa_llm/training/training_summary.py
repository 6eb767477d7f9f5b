"""What a run of training did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingSummary:
    """What a run of training did. `alarms`: of the adversary at the end, and whether the attention sink
    drained on the way.

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
