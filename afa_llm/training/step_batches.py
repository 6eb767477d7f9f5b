"""Which reviews a rank reads in which step: a pure function of (seed, step) and of the layout."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from afa_llm.config import Config
from afa_llm.config_running import Training as Settings
from afa_llm.data.batching import collate, plan_epoch, share
from afa_llm.records import Batch, Prompt
from afa_llm.training.distributed import World
from afa_llm.training.schedules import steps_of


class StepBatches:
    """Micro-batches of this rank, of prompts padded with `pad_token_id`, step by step.

    `identity`, which a run that goes on must find the same: a digest of what is trained on and how it is numbered, and
    the settings that decide which of it comes in which step.
    """

    def __init__(self, config: Config, world: World, prompts: Sequence[Prompt], pad_token_id: int) -> None:
        self.settings, self.seed, self.world = config.training, config.run.seed, world
        self.prompts, self.pad_token_id = prompts, pad_token_id
        self.lengths = [len(prompt.token_ids) for prompt in prompts]
        self.per_epoch = math.ceil(len(prompts) / self.settings.reviews_per_step)
        self.total = planned_steps(self.settings, len(prompts))
        order = {"run.seed": self.seed, "training.reviews_per_step": self.settings.reviews_per_step}
        self.identity: dict[str, Any] = {"reviews": _digest(prompts), "order": order}
        self._plan: tuple[int, list[list[int]]] = (-1, [])

    def of_step(self, step: int) -> list[Batch]:
        epoch, place = divmod(step, self.per_epoch)
        if self._plan[0] != epoch:
            plan = plan_epoch(self.lengths, self.settings.reviews_per_step, seed=self.seed, epoch=epoch)
            self._plan = (epoch, plan)
        shares = share(
            self._plan[1][place],
            self.lengths,
            world_size=self.world.size,
            rank=self.world.rank,
            micro_batch_size=self.settings.micro_batch_size,
        )
        return [
            collate(
                [self.prompts[i] for i, _ in rows],
                self.pad_token_id,
                weights=[w for _, w in rows],
                device=self.world.device,
            )
            for rows in shares
        ]


def planned_steps(settings: Settings, reviews: int) -> int:
    """Optimizer steps of a run: by epochs, at most max_steps, at least one."""
    by_epochs = steps_of(settings.epochs, math.ceil(reviews / settings.reviews_per_step))
    return max(1, min(by_epochs, settings.max_steps or by_epochs))


def _digest(prompts: Sequence[Prompt]) -> str:
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(f"{prompt.example.example_id!r} {prompt.example.label} {prompt.token_ids}\n".encode())
    return digest.hexdigest()
