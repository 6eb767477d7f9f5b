"""The training loop: which reviews when, rounds, steps, logging, checkpoints.

Everything drawn is a pure function of (seed, epoch, review): a resumed run continues as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afa_llm.config import Config
from afa_llm.config import Training as Settings
from afa_llm.data.batching import collate, plan_epoch, share
from afa_llm.errors import AfaError
from afa_llm.method.detection_scores import alarms
from afa_llm.models.adapters import save_adapter
from afa_llm.records import Batch, Prompt
from afa_llm.training.adversarial_round import AdversarialRound
from afa_llm.training.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from afa_llm.training.distributed import World
from afa_llm.training.engine import Engine
from afa_llm.training.metrics import MetricsLog


@dataclass(frozen=True)
class TrainingSummary:
    """What a run of training did. `alarms` are those of the adversary's guards at the end."""

    steps: int
    reviews: int
    seconds: float
    skipped_steps: int
    resumed_from: int
    last_metrics: dict[str, float]
    alarms: tuple[str, ...]


class Trainer:
    """Runs rounds over prompts until the planned steps are done. Files go to `folder` (rank 0 writes)."""

    def __init__(
        self,
        config: Config,
        world: World,
        adversarial_round: AdversarialRound,
        engine: Engine,
        prompts: Sequence[Prompt],
        folder: Path,
    ) -> None:
        self.config, self.world, self.engine = config, world, engine
        self.round, self.prompts, self.folder = adversarial_round, prompts, folder
        self.lengths = [len(prompt.token_ids) for prompt in prompts]
        self.steps_per_epoch = math.ceil(len(prompts) / config.training.reviews_per_step)
        self.total_steps = planned_steps(config.training, len(prompts))

    def run(self) -> TrainingSummary:
        """Train to the end. Raises AfaError after too many non-finite steps in a row (a checkpoint comes first)."""
        settings = self.config.training
        started, done, skipped = time.monotonic(), self._resume(), 0
        in_a_row, values = 0, {}
        log = MetricsLog(self.folder, self.total_steps, done) if self.world.leads else None
        self.round.decoder.model.train()
        for step in range(done, self.total_steps):
            began = time.monotonic()
            batches = self.batches(step)
            means = self.round.play(batches, epoch=step // self.steps_per_epoch, step=step)
            rate = learning_rate(settings, step, self.total_steps)
            outcome = self.engine.step(rate)
            skipped += not outcome.applied
            in_a_row = 0 if outcome.applied else in_a_row + 1
            if (step + 1) % settings.log_every == 0 or step + 1 == self.total_steps:
                values = means.over_ranks(self.world)
                values |= {"learning_rate": rate, "grad_norm": outcome.grad_norm, "skipped_steps": float(skipped)}
                values |= {"epoch": (step + 1) / self.steps_per_epoch, "step_seconds": time.monotonic() - began}
                if log:
                    log.write(step + 1, values)
            if in_a_row > settings.max_skipped_steps:
                path = self.save(step + 1)
                raise AfaError(
                    f"training: {in_a_row} steps in a row had a non-finite gradient, the last is step {step + 1}; "
                    f"checkpoint {path}. Lower training.learning_rate ({settings.learning_rate}) or set "
                    "model.dtype=float32"
                )
            if (
                settings.checkpoint_every
                and (step + 1) % settings.checkpoint_every == 0
                and step + 1 < self.total_steps
            ):
                self.save(step + 1)
        self.save(self.total_steps)
        if log:
            log.close()
        return self._summary(done, skipped, time.monotonic() - started, values)

    def batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step."""
        settings = self.config.training
        epoch, place = divmod(step, self.steps_per_epoch)
        plan = plan_epoch(self.lengths, settings.reviews_per_step, seed=self.config.run.seed, epoch=epoch)
        shares = share(
            plan[place],
            self.lengths,
            world_size=self.world.size,
            rank=self.world.rank,
            micro_batch_size=settings.micro_batch_size,
        )
        pad = self.round.decoder.pad_token_id
        return [
            collate([self.prompts[i] for i, _ in rows], pad, weights=[w for _, w in rows], device=self.world.device)
            for rows in shares
        ]

    def save(self, step: int) -> Path:
        """A checkpoint after `step` steps; every rank calls it."""
        adversary = self.round.feedback.adversary
        full = adversary.state_dict() if adversary else {}
        alone = {name: full.pop(name) for name in ("replay_clean", "replay_masked", "generator") if name in full}
        return save_checkpoint(
            self.folder / "checkpoints",
            self.world,
            state={"step": step, "world_size": self.world.size, "held_out": list(self.round.feedback.held_out)},
            engine=self.engine.state(),
            adversary=full or None,
            rank_state={"random": torch.get_rng_state(), "adversary": alone},
            keep=self.config.training.keep_checkpoints,
        )

    def save_adapter(self, folder: Path) -> None:
        """The trained adapter in PEFT format; every rank calls it, rank 0 writes."""
        model = self.round.decoder.model
        with self.engine.whole([p for p in model.parameters() if p.requires_grad]):
            if self.world.leads:
                save_adapter(model, folder)
        self.world.wait()

    def _resume(self) -> int:
        if not self.config.run.resume:
            return 0
        checkpoint = newest_checkpoint(self.folder / "checkpoints", self.world)
        if checkpoint is None:
            return 0
        self._restore(checkpoint)
        return int(checkpoint.state["step"])

    def _restore(self, checkpoint: Checkpoint) -> None:
        try:
            self.engine.load_state(checkpoint.engine)
        except (KeyError, RuntimeError) as error:
            raise AfaError(
                f"{checkpoint.path}: does not fit this run's model and adapter ({error}); resume with the settings of "
                "its config.yaml"
            ) from None
        own: dict[str, Any] = checkpoint.rank_state or {}
        adversary = self.round.feedback.adversary
        if adversary and checkpoint.adversary:
            # A rank that did not exist when this was saved starts with an empty replay store.
            alone = own.get("adversary") or {k: v for k, v in adversary.state_dict().items() if "replay" in k}
            fresh = {"generator": adversary.state_dict()["generator"]}
            adversary.load_state_dict(checkpoint.adversary | fresh | alone)
        self.round.feedback.held_out.extend((a, b) for a, b in checkpoint.state["held_out"])
        if "random" in own:
            torch.set_rng_state(own["random"])

    def _summary(self, done: int, skipped: int, seconds: float, values: dict[str, float]) -> TrainingSummary:
        settings = self.config.adversary
        auroc = values.get("adversary_auroc")
        raised = alarms(auroc, settings.auroc_high, settings.auroc_low) if auroc is not None else []
        return TrainingSummary(
            steps=self.total_steps,
            reviews=len(self.prompts),
            seconds=seconds,
            skipped_steps=skipped,
            resumed_from=done,
            last_metrics=values,
            alarms=tuple(raised),
        )


def planned_steps(settings: Settings, reviews: int) -> int:
    """Optimizer steps of a run: by epochs, at most max_steps, at least one."""
    by_epochs = math.ceil(math.ceil(reviews / settings.reviews_per_step) * settings.epochs)
    return max(1, min(by_epochs, settings.max_steps or by_epochs))


def learning_rate(settings: Settings, step: int, total: int) -> float:
    """Step size at step 0..total-1: linear warm-up, then cosine to 0, linear to 0, or constant."""
    warmup = math.ceil(settings.warmup_share * total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
    return settings.learning_rate * shape[settings.schedule]
