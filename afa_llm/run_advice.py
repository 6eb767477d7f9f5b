"""What is told before a training run whose settings are allowed, and likely not what was meant."""

from __future__ import annotations

from collections.abc import Iterator

from afa_llm.config import Config
from afa_llm.run_layers import DEEP


def advices(config: Config, steps: int, depth: int = 0) -> Iterator[str]:
    """A line for each such setting of a run of `steps` steps with a model of `depth` layers (0: not known)."""
    feedback = config.objective.policy_gradient_weight > 0
    if config.attention.layers == "all" and depth >= DEEP and feedback:
        yield (
            f"attention.layers = all, {depth} of them: in a model of 30 most said little about what decides; "
            "attention.layers=auto takes those of this model that say more"
        )
    every = config.training.validate_every
    if config.training.adapter == "best" and (every == 0 or every >= steps):
        yield (
            f"training.adapter = best: with training.validate_every = {every} the loss on data.validation is taken "
            f"after the last of {steps} steps alone, so that this is the best; set training.validate_every "
            "lower than that, and above 0"
        )
    warm_up = config.adversary.warmup_rounds
    if feedback and config.reward.source == "adversary" and steps <= warm_up:
        yield (
            f"adversary.warmup_rounds = {warm_up}: the adversary warms up in all {steps} step(s), so that there is no "
            "feedback, as with objective.policy_gradient_weight=0; train longer, or lower it"
        )
