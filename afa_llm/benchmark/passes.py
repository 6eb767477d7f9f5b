"""How many times a review goes through the decoder in one training round, from the settings alone.

Follows training/adversarial_round.py and looking.py; a test holds it to what the decoder counts.
"""

from __future__ import annotations

import math

from afa_llm.config import Config
from afa_llm.errors import AfaError

FORWARD, BACKWARD = 2, 2
"""Operations for each frozen weight and token (models/pass_tokens.py)."""


def passes_per_review(config: Config) -> tuple[int, int]:
    """(forward, of them with a backward) passes of one review in one round, on one rank.

    The clean pass is read once with its graph where the whole round is one micro-batch without dropout below ZeRO-3,
    else once without and once with it. Raises AfaError for masking.view=infill, whose proposals take passes of a number
    that no setting tells.
    """
    if config.masking.view == "infill" and config.objective.policy_gradient_weight > 0:
        raise AfaError(
            "match_flops: with masking.view = infill the passes of a round depend on what is proposed; give both arms "
            "training.max_steps instead"
        )
    objective, reader = config.objective, config.rollouts.reader
    one_batch = math.ceil(config.training.reviews_per_step / config.training.micro_batch_size) == 1
    keeps_graph = one_batch and config.lora.dropout == 0 and config.training.zero_stage < 3
    forward, backward = (1 if keeps_graph or not objective.looks_ahead else 2), 1
    if objective.policy_gradient_weight > 0:
        forward += config.masking.masks_per_review + (config.reward.source == "adversary") + (reader == "base")
    if objective.self_supervised_weight > 0:
        forward += objective.self_supervised_rounds - 1
    if objective.kl_weight > 0:
        forward += 1
    if objective.word_mass_weight > 0 and not (objective.policy_gradient_weight > 0 and reader == "base"):
        forward += 1
    if objective.uses_masked_view:
        forward, backward = forward + 1 + (objective.masked_base_weight > 0), backward + 1
    if objective.shown_task_weight > 0:
        forward, backward = forward + 1, backward + 1
    return forward, backward


def operations_per_review(config: Config) -> int:
    """Operations for each frozen weight and token of a review in one round."""
    forward, backward = passes_per_review(config)
    return FORWARD * forward + BACKWARD * backward
