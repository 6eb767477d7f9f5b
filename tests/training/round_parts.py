"""A round with everything it needs, on a tiny decoder, for the tests of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from shared_settings import EVERY_PART

from afa_llm import assembly
from afa_llm.config import Config
from afa_llm.config_loading import load_config
from afa_llm.data.batching import collate
from afa_llm.material import prepare
from afa_llm.records import Batch, Prompt
from afa_llm.training.adversarial_round import AdversarialRound
from afa_llm.training.distributed import World
from afa_llm.training.engine import PlainEngine

ALONE = World(0, 1, torch.device("cpu"))


class Parts:
    """A round with everything it needs, fresh for a configuration."""

    def __init__(self, tiny_model: Path, *overrides: str) -> None:
        self.config: Config = load_config(
            None,
            [
                f"model.path={tiny_model}",
                "model.dtype=float32",
                "data.train.max_samples=24",
                "data.evaluation=[]",
                "adversary.warmup_rounds=0",
                *EVERY_PART,
                *overrides,
            ],
        )
        self.material = prepare(self.config)
        self.decoder = assembly.build_decoder(self.config, self.material, torch.device("cpu"))
        # A fresh adapter gives no gradient to half of its weights; start from one that has moved.
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(1)
            for name, parameter in self.decoder.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.05)
        self.engine = PlainEngine(self.decoder.model, self.config.training)
        self.round: AdversarialRound = assembly.build_round(
            self.config, self.material, self.decoder, self.engine, ALONE
        )

    def batches(self, *sizes: int, fillers: int = 0) -> list[Batch]:
        """Micro-batches of the first reviews; `fillers` repeats the first review with weight 0 in the last one."""
        prompts, pad, found, start = self.material.train_prompts, self.decoder.pad_token_id, [], 0
        for size in sizes:
            found.append(collate(prompts[start : start + size], pad))
            start += size
        if fillers:
            last = [*found[-1].prompts, *[prompts[0]] * fillers]
            found[-1] = collate(last, pad, weights=[1.0] * found[-1].size + [0.0] * fillers)
        return found

    def gradient(self, batches: Sequence[Batch], step: int = 0, progress: float = 0.0) -> torch.Tensor:
        self.engine.optimizer.zero_grad()
        self.decoder.model.train()
        self.means = self.round.play(batches, epoch=0, step=step, progress=progress)
        return torch.cat([p.grad.flatten() for p in self.engine.names.values() if p.grad is not None])


def one_word_prompt(parts: Parts, name: str = "one") -> Prompt:
    """Of a review that no mask can hide a word of."""
    example = parts.material.train_prompts[0].example
    return parts.material.builders["review_sentiment"].build(type(example)(name, "Superb", 1, ((0, 6),)))


ARMS = {
    "adversary": [],
    "drop": ["reward.source=probability_drop"],
    "answer shift": ["reward.source=answer_shift"],
    "adversary of shifts": ["adversary.features=[shift]"],
    "annotators": ["reward.source=rationale"],
    "rare words": ["reward.source=rarity", "reward.rarity_power=0.5"],
    "adversary for rare words": ["reward.rarity_power=1"],
    "all terms": [
        "objective.entropy_weight=0.1",
        "objective.kl_weight=0.3",
        "objective.word_mass_weight=0.7",
        "objective.masked_task_weight=0.5",
        "objective.shown_task_weight=0.5",
        "masking.view=delete",
    ],
    "other words": [
        "masking.view=infill",
        "masking.infill.candidates=2",
        "objective.masked_task_weight=0.5",
    ],
    "several fillers": [
        "masking.view=replace",
        "masking.fillers=[' a', ' the', ' one of']",
        "objective.masked_task_weight=1",
    ],
    "consistent view": [
        "objective.masked_by=random",
        "objective.masked_rate=0.5",
        "objective.masked_consistency_weight=1",
    ],
    "random view": ["objective.masked_by=random", "objective.masked_task_weight=1", "objective.masked_base_weight=1"],
    "random view, no adversary": [
        "objective.masked_by=random",
        "objective.masked_task_weight=1",
        "reward.source=probability_drop",
    ],
    "rival": [
        "objective.policy_gradient_weight=0",
        "objective.self_supervised_weight=2",
        "objective.self_supervised_rounds=3",
    ],
    "shuffled": ["reward.shuffle=true", "masking.direction=attended"],
}
