"""Numbers that change over a run: step sizes and weights, as functions of how much of it is done."""

from __future__ import annotations

import math


def steps_of(share: float, steps: int) -> int:
    """A share of so many steps, rounded up; what is within 1e-9 of a whole number is that number: 1.1 · 50 are 55."""
    return math.ceil(share * steps - 1e-9)


def decay(shape: str, progress: float) -> float:
    """Factor at `progress` 0..1: `constant` 1, `linear` and `cosine` from 1 to 0."""
    factors = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return factors[shape]


def warmed_up(peak: float, share: float, shape: str, step: int, total: int) -> float:
    """Value at step 0..total-1: linear warm-up to `peak` over `share` of the steps, then `decay`."""
    warmup = steps_of(share, total)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * decay(shape, (step - warmup) / max(1, total - warmup))
