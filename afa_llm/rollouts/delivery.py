"""Proof that the adapter arrived: fixed prompts answered on both sides, after each sync.

A peer of ours once trained for two months with an adapter that never reached its engine. Three things are told apart:

- the two sides disagree: mean |Δp| over the probe, p the probability of a label among the labels;
- the adapter is without effect: the trainer's answers differ from the base's, the engine's are the base's own;
- the adapter is an old one: the trainer's answers moved since the last version, the engine's are the same numbers.

The last two are about equal numbers, so they show even where an adapter has moved too little for the first. A movement
counts where it is larger than what the two sides disagree by on the base.

Limits: our choice. Mean |Δp| measured on the packaged model, 64 prompts: float32 on both sides 6e-7; NF4 against its
own unpacked weights, both in bfloat16, 0.003 to 0.008 (bfloat16 against float32: 0.005); NF4 against the
original weights 0.020, which fails: serve the unpacked base then (rollouts.serve).

Legend: N probe prompts, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from afa_llm.errors import AfaError, EnginesFailedError

LEAST_MOVEMENT = 1e-4
"""Nats by which answers must move to count as moved: a hundred times what float32 differs by between two programs."""


@dataclass(frozen=True)
class Limits:
    """Mean |Δp| from which to warn, and from which to fail."""

    warn: float = 0.005
    fail: float = 0.01


@dataclass(frozen=True)
class Gap:
    """How far the two sides are apart. `mean`: mean |Δp|; `largest`: of the log-probabilities, in nats."""

    mean: float
    largest: float


class DeliveryProof:
    """Compares the trainer and one engine, version by version. `base_NC`: label log-probabilities of the base.

    `address`: the engine's at present, for messages; empty where it has none.
    """

    def __init__(
        self, ours_base_NC: torch.Tensor, theirs_base_NC: torch.Tensor, limits: Limits, address: str = ""
    ) -> None:
        self.limits, self.address = limits, address
        self.ours_base_NC, self.theirs_base_NC = ours_base_NC, theirs_base_NC
        self.base = gap(ours_base_NC, theirs_base_NC)
        self.floor = max(LEAST_MOVEMENT, self.base.largest)
        self._last = (ours_base_NC, theirs_base_NC)
        if self.base.mean > limits.fail:
            raise AfaError(
                f"rollouts: engine{self._at} and trainer disagree on the base itself: mean |Δp| {self.base.mean:.4f} "
                f"is over rollouts.probe_fail = {limits.fail:g}. Does the engine serve model.path? A base in 4 bits is "
                "another model than the original: set rollouts.serve=dequantised, or a higher rollouts.probe_fail"
            )

    def check(self, version: int, ours_NC: torch.Tensor, theirs_NC: torch.Tensor) -> Gap:
        """The gap of this version. Raises EnginesFailedError where the adapter did not arrive."""
        found = gap(ours_NC, theirs_NC)
        ours_last_NC, theirs_last_NC = self._last
        self._last = (ours_NC, theirs_NC)
        if self._moved(ours_NC, self.ours_base_NC) and torch.equal(theirs_NC, self.theirs_base_NC):
            self._fail(version, "the adapter changes nothing in the engine: it answers like the base")
        if self._moved(ours_NC, ours_last_NC) and torch.equal(theirs_NC, theirs_last_NC):
            self._fail(version, "the engine still answers by an older adapter")
        if found.mean > self.limits.fail:
            self._fail(version, f"mean |Δp| {found.mean:.4f} is over rollouts.probe_fail = {self.limits.fail:g}")
        return found

    def warning(self, found: Gap) -> str:
        """A line where the gap is worth one, else nothing."""
        if found.mean <= self.limits.warn:
            return ""
        return f"rollouts: engine{self._at} and trainer are {found.mean:.4f} apart (mean |Δp|, rollouts.probe_warn)"

    @property
    def _at(self) -> str:
        return f" at {self.address}" if self.address else ""

    def _moved(self, now_NC: torch.Tensor, before_NC: torch.Tensor) -> bool:
        return float((now_NC - before_NC).abs().max()) > self.floor

    def _fail(self, version: int, what: str) -> None:
        raise EnginesFailedError(
            f"rollouts: adapter version {version} did not arrive{self._at}: {what}. Base: mean |Δp| "
            f"{self.base.mean:.4f}. The rewards would be another model's; see the engine's log, or set "
            "rollouts.backend=transformers"
        )


def gap(ours_NC: torch.Tensor, theirs_NC: torch.Tensor) -> Gap:
    """Distance of two tables of label log-probabilities [N, C]."""
    if not ours_NC.numel():
        return Gap(0.0, 0.0)
    share, other = ours_NC.double().softmax(-1), theirs_NC.double().softmax(-1)
    return Gap(float((share - other).abs().mean()), float((ours_NC - theirs_NC).abs().max()))
