"""What the passes of a round take beside weights: the clean pass with its graph, the masked views, the measurements.

Follows training/adversarial_round.py and looking.py: with one micro-batch, without dropout and below ZeRO 3 the masked
views are read while the clean pass's graph is kept; else the clean pass is read twice. Where an engine answers, views
are read here only for what answers do not tell.

Legend: L captured layers, H heads, T tokens, K masks per review.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from afa_llm.config import Config
from afa_llm.method.discriminator import Discriminator
from afa_llm.method.view_features import feature_count
from afa_llm.models.adapters import attach_lora
from afa_llm.models.decoder import choose_layers
from afa_llm.planning.dry_run import ANSWERS, reading_pass, training_pass
from afa_llm.planning.layout import Layout
from afa_llm.planning.stand_ins import replace_quantized_products
from afa_llm.planning.weights import FLOAT32
from afa_llm.records import AnswerWords


@dataclass(frozen=True)
class RoundPasses:
    """Bytes on the device. `kept`: activations of a micro-batch for its backward. `training`, `measuring`: peaks,
    `kept` included. `rows`: reviews of a micro-batch. `masked_rows`: views read at once. `looking`: peak until the
    masked views are judged, as long as an engine may be asked. `at`: where the peak is. `answer_tokens`: of the longest
    answer; with more than one a review is read once for each of `labels`."""

    rows: int
    masked_rows: int
    kept: int
    looking: int
    training: int
    measuring: int
    at: str
    answer_tokens: int = 1
    labels: int = 2


def adapted(config: Config, base: Any) -> Any:
    """The base on the meta device with its adapter; its quantised layers run their stand-ins."""
    checkpointing = config.model.gradient_checkpointing
    model = attach_lora(base, config.lora, seed=0, gradient_checkpointing=checkpointing)
    replace_quantized_products(model, getattr(torch, config.model.dtype))
    return model


def round_passes(config: Config, model: Any, layout: Layout, answers: AnswerWords = ANSWERS) -> RoundPasses:
    """Dry runs of every kind of pass of the configuration. Raises AfaError where the family cannot be planned."""
    text = model.config.get_text_config()
    layers = choose_layers(config.attention.layers, int(text.num_hidden_layers))
    tokens, settings = config.data.max_tokens, config.training
    reviews = -(-settings.reviews_per_step // layout.ranks)
    parts = -(-reviews // settings.micro_batch_size)
    rows = -(-reviews // parts)
    views = _masked_views(config)
    masked_rows = min(views * rows, 4 * settings.micro_batch_size)
    trained = training_pass(model, layers, rows, tokens, answers)
    masked = reading_pass(model, layers, masked_rows, tokens, answers).peak if views else 0
    measured = reading_pass(model, layers, config.evaluation.batch_size, tokens, answers).peak
    repeated = 1 if answers.single else len(answers.token_ids)  # the rows of all its labels are held, one is looked at
    one_row = repeated * len(layers) * int(text.num_attention_heads) * tokens * FLOAT32
    readings = one_row * (2 * views * rows + reviews)  # captured attention: the views' twice while they are joined
    keeps_graph = parts == 1 and layout.stage < 3 and config.lora.dropout == 0
    beside = masked + readings + (trained.kept if keeps_graph else 0)
    return RoundPasses(
        rows=rows,
        masked_rows=masked_rows,
        kept=trained.kept,
        looking=beside,
        training=max(trained.peak + (0 if parts == 1 else one_row * reviews), beside),
        measuring=measured,
        at="masked views" if beside > trained.peak else "backward",
        answer_tokens=max(map(len, answers.token_ids)),
        labels=len(answers.token_ids),
    )


def adversary_bytes(config: Config, hidden_size: int, layout: Layout) -> int:
    """Discriminator, its gradients and moments, and a round's pairs of features, with as many of the replay."""
    if not (config.objective.policy_gradient_weight > 0 and config.reward.source == "adversary"):
        return 0
    settings = config.adversary
    features = feature_count(hidden_size, len(config.data.labels), settings.features)
    head = Discriminator(features, settings.width, settings.spectral_norm)
    trained = sum(p.numel() for p in head.parameters())
    fixed = sum(b.numel() for b in head.buffers())
    pairs = -(-config.training.reviews_per_step // layout.ranks) * (config.masking.masks_per_review + 1)
    return FLOAT32 * (4 * trained + fixed + 2 * 2 * pairs * features)


def replay_bytes(config: Config, hidden_size: int, layout: Layout) -> int:
    """Pairs of older rounds, in host memory."""
    if not adversary_bytes(config, hidden_size, layout):
        return 0
    features = feature_count(hidden_size, len(config.data.labels), config.adversary.features)
    pairs = -(-config.training.reviews_per_step // layout.ranks) * (config.masking.masks_per_review + 1)
    return FLOAT32 * 2 * pairs * features * config.adversary.replay


def _masked_views(config: Config) -> int:
    """Views of a review that are read without gradient."""
    told = config.rollouts.backend != "transformers" and config.judges_by_answers
    if config.objective.policy_gradient_weight <= 0 or told:
        objective = config.objective
        beside = (objective.kl_weight, objective.masked_base_weight, objective.self_supervised_weight)
        return 1 if max(*beside, objective.word_mass_weight) > 0 else 0
    return config.masking.masks_per_review + (config.reward.source == "adversary")
