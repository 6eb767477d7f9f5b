"""A trainer on the tiny decoder in this process, fresh for each call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from shared_settings import EVERY_PART

from afa_llm import assembly
from afa_llm.config_loading import load_config
from afa_llm.material import prepare
from afa_llm.training.distributed import World
from afa_llm.training.trainer import Trainer


def small_trainer(tiny_model: Path, folder: Path, *overrides: str, world: World | None = None) -> Trainer:
    """Plain engine, float32, dropout, an adversary with a replay store."""
    config = load_config(
        None,
        [
            f"model.path={tiny_model}",
            "model.dtype=float32",
            "lora.dropout=0.1",
            "data.train.max_samples=30",
            "data.evaluation=[]",
            "adversary.warmup_rounds=2",
            "adversary.replay=3",
            "training.reviews_per_step=8",
            "training.micro_batch_size=5",
            "training.epochs=3",
            "training.learning_rate=1e-3",
            *EVERY_PART,
            *overrides,
        ],
    )
    world = world or World(0, 1, torch.device("cpu"))
    material = prepare(config)
    decoder = assembly.build_decoder(config, material, world.device)
    engine = assembly.build_engine(config, decoder, world)
    adversarial_round = assembly.build_round(config, material, decoder, engine, world)
    validate = assembly.build_validation(config, material, decoder, world)
    return Trainer(config, world, adversarial_round, engine, material.train_prompts, folder, validate)


def everything(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All that the next step would depend on, flat."""
    found = dict(trainer.engine.state())
    feedback = trainer.round.feedback
    assert feedback.adversary is not None
    _flatten("adversary", feedback.adversary.state_dict(), found)
    found["held_out"] = torch.tensor(list(feedback.held_out), dtype=torch.float64)
    return found


def _flatten(name: str, value: Any, found: dict[str, torch.Tensor]) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            _flatten(f"{name}.{key}", part, found)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            _flatten(f"{name}.{index}", part, found)
    elif value is not None:
        found[name] = torch.as_tensor(value)
