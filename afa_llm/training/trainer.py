"""The training loop: which reviews when, rounds, steps, logging, checkpoints.

Everything drawn is a pure function of (seed, epoch, review), dropout's noise of (seed, step, rank): a resumed run
continues as if it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from afa_llm.config import Config
from afa_llm.errors import AfaError, EnginesFailedError, StoppedError
from afa_llm.method.detection_scores import alarms
from afa_llm.models.adapters import save_adapter
from afa_llm.models.pass_tokens import PassTokens, pass_weights
from afa_llm.records import Prompt
from afa_llm.training.adversarial_round import AdversarialRound
from afa_llm.training.best_validation import best_step, is_better, mark_best
from afa_llm.training.checkpoint import best_checkpoint, newest_checkpoint
from afa_llm.training.distributed import World
from afa_llm.training.dropout_noise import seed_dropout
from afa_llm.training.engine import Engine
from afa_llm.training.metrics import Means, MetricsLog, logged_at, peak_memory_gib
from afa_llm.training.run_state import check_plan, restore_run, save_run, undoing
from afa_llm.training.schedules import warmed_up
from afa_llm.training.sink_watch import SinkWatch
from afa_llm.training.step_batches import StepBatches
from afa_llm.training.training_summary import Skips, Stopwatch, TrainingSummary


class Trainer:
    """Runs rounds over prompts until the planned steps are done. Files go to `folder` (rank 0 writes).

    `validate` gives the loss on reviews that are neither trained on nor reported, in nats; `deliver(version)` puts the
    adapter as it is now into the engines that answer masked prompts, and gives what to log. Every rank calls both.
    """

    def __init__(
        self,
        config: Config,
        world: World,
        adversarial_round: AdversarialRound,
        engine: Engine,
        prompts: Sequence[Prompt],
        folder: Path,
        validate: Callable[[], float] | None = None,
        deliver: Callable[[int], dict[str, float]] | None = None,
    ) -> None:
        self.config, self.world, self.engine = config, world, engine
        self.round, self.prompts, self.folder = adversarial_round, prompts, folder
        self.validate, self.deliver = validate, deliver
        self.delivered = -1
        self.batches = StepBatches(config, world, prompts, adversarial_round.decoder.pad_token_id)
        self.total_steps = self.batches.total
        self.checkpoints = folder / "checkpoints"
        self.skips, self.sink = Skips(), SinkWatch()
        self.watch = Stopwatch()
        self.last_metrics: dict[str, float] = {}
        self.tokens = PassTokens()
        self.validation: float | None = None  # the loss after the newest step, where one was due
        self.unvalidated = False  # one was due there, and a stop left it unfinished
        self.resumed_from: int | None = None

    def run(self) -> TrainingSummary:
        """Train to the end. Raises AfaError after too many non-finite steps in a row (a checkpoint comes first), and
        StoppedError after a signal to any rank (a checkpoint comes first), both on all ranks."""
        self.watch.start()
        done = self.resume()
        log = MetricsLog(self.folder, self.total_steps, done, self.watch.earlier) if self.world.leads else None
        self.round.decoder.model.train()
        if self.unvalidated:
            self._validate_late(done, log)
        for step in range(done, self.total_steps):
            self._step(step, log)
            self._keep(step + 1)
        if log:
            log.close()
        taken = self._load_best() if self.config.training.adapter == "best" else self.total_steps
        return self._summary(done, taken)

    def _step(self, step: int, log: MetricsLog | None) -> None:
        """Round, optimizer step, metrics."""
        settings, began = self.config.training, time.monotonic()
        self.world.pulse.at("training", step + 1)
        seed_dropout(self.config.run.seed, step, self.world.rank)
        means = self._play(step)
        rate = warmed_up(settings.learning_rate, settings.warmup_share, settings.schedule, step, self.total_steps)
        outcome = self.engine.step(rate)
        self.skips = self.skips.after(outcome.applied)
        self._validate(due=self._is_due(settings.validate_every, step + 1))
        if self.validation is not None:
            means.put("validation_loss", self.validation)
        begun = self.validation is not None or self.unvalidated  # a late loss needs a line to stand in, too
        if (step + 1) % settings.log_every == 0 or step + 1 == self.total_steps or begun:
            values = means.over_ranks(self.world)
            values |= {"learning_rate": rate, "grad_norm": outcome.grad_norm, "skipped_steps": float(self.skips.total)}
            values |= {"epoch": (step + 1) / self.batches.per_epoch, "step_seconds": time.monotonic() - began}
            values["peak_memory_gib"] = self.world.largest(peak_memory_gib(self.world.device))
            self.last_metrics = values
            self.world.tell(self.sink.see(values.get("sink_mass", math.nan), step + 1))
            if log:
                log.write(step + 1, values)

    def _play(self, step: int) -> Means:
        """The round after `step` steps, and what to log of it.

        Raises StoppedError where a stop was asked for while an engine was waited for, and EnginesFailedError where one
        failed for good. Whoever waits tells all ranks in place of the answers (`ServerGenerator`), so all give the
        round up at the same place. No weight has moved since the step before: a checkpoint of that step comes first.
        """
        undo = undoing(self.round)
        try:
            delivered = self._deliver(step)
            batches, epoch = self.batches.of_step(step), step // self.batches.per_epoch
            means = self.round.play(batches, epoch=epoch, step=step, progress=step / self.total_steps)
        except StoppedError:
            undo()
            self._stop(step, self.save(step))
        except AfaError as failure:
            # What one of several ranks stumbles over alone, as over the engine in its process, the others do not know
            # of: they would not come to save. They end when this one has gone.
            if step == 0 or (self.world.size > 1 and not isinstance(failure, EnginesFailedError)):
                raise
            undo()
            why, path = str(failure).rstrip("."), self.save(step)
            saved = f"{step} of {self.total_steps} steps are saved in {path}: run.resume=true goes on"
            raise EnginesFailedError(f"{why}. {saved}") from failure
        for name, value in delivered.items():
            means.put(name, value)
        return means

    def _deliver(self, step: int) -> dict[str, float]:
        """The adapter after `step` steps is version `step`; in the engines before the round that asks for it."""
        if self.deliver is None or (self.delivered >= 0 and step < self.delivered + self.config.rollouts.sync_every):
            return {}
        self.delivered = step
        with self.round.decoder.uncounted():
            return self.deliver(step)

    def _validate(self, *, due: bool) -> None:
        """The loss on the validation reviews, where it is due, without its passes among the training's.

        A stop that is asked for meanwhile leaves it unfinished on all ranks: whoever heard of it tells the others in
        place of its answers (`shared`). The step itself is done, so the stop waits for `_keep`, which saves it; the
        resumed run validates before it goes on.
        """
        self.validation, self.unvalidated = None, False
        if self.validate is None or not due:
            return
        try:
            with self.round.decoder.uncounted():
                self.validation = self.validate()
        except StoppedError:
            self.unvalidated = True

    def _validate_late(self, step: int, log: MetricsLog | None) -> None:
        """What a stop left unfinished after `step`: the run goes on as if it had not been there."""
        self._validate(due=True)
        if self.validation is not None:
            self.last_metrics |= {"validation_loss": self.validation}
            if log:
                log.amend(step, self.last_metrics)
        self._keep(step)

    def _keep(self, step: int) -> None:
        """Checkpoints where they are due, and whatever ends training early. The same decisions on every rank."""
        settings = self.config.training
        stopping = self.world.any(self.world.stop.requested)
        failing = self.skips.in_a_row > settings.max_skipped_steps
        best = self._new_best()
        if not (stopping or failing or best is not None or self._is_due(settings.checkpoint_every, step)):
            return
        path = self.save(step)
        if best is not None and self.world.leads:
            mark_best(self.checkpoints, step, best)
        if failing:
            raise AfaError(
                f"training: {self.skips.in_a_row} steps in a row had a non-finite gradient, the last is step {step}; "
                f"checkpoint {path}. Lower training.learning_rate ({settings.learning_rate}) or set model.dtype=float32"
            )
        if stopping:
            self._stop(step, path)

    def _stop(self, step: int, path: Path) -> NoReturn:
        """Every rank calls it, with the checkpoint that was saved."""
        reasons = self.world.gather(self.world.stop.reason)
        self.world.stop.ask(next(filter(None, reasons), ""))
        raise self.world.stop.error(f"after step {step} of {self.total_steps}, saved in {path}") from None

    def _is_due(self, every: int, step: int) -> bool:
        """Every so many steps, and at the end."""
        return step == self.total_steps or (every > 0 and step % every == 0)

    def _new_best(self) -> float | None:
        """The validation loss after this step where it is the best so far; an unfinished validation has none."""
        if self.validation is None:
            return None
        before = self.world.from_leader(best_step(self.checkpoints))
        return self.validation if is_better(self.validation, before) else None

    def save(self, step: int) -> Path:
        """A checkpoint after `step` steps; every rank calls it."""
        forward, backward = self._all_tokens()
        return save_run(
            self.checkpoints,
            self.world,
            self.engine,
            self.round,
            state={
                "step": step,
                **self.batches.identity,
                "skipped": self.skips.total,
                "skipped_in_a_row": self.skips.in_a_row,
                "unvalidated": self.unvalidated,
                "sink": self.sink.state(),
                "forward_tokens": forward,
                "backward_tokens": backward,
                "seconds": self.watch.seconds,
            },
            keep=self.config.training.keep_checkpoints,
        )

    def save_adapter(self, folder: Path) -> None:
        """The trained adapter in PEFT format; every rank calls it, rank 0 writes. Raises AfaError on all ranks where it
        cannot be written; the weights are in the last checkpoint."""
        model, trouble = self.round.decoder.model, None
        with self.engine.whole([p for p in model.parameters() if p.requires_grad]):
            if self.world.leads:
                try:
                    save_adapter(model, folder)
                except AfaError as error:
                    trouble = f"{error}. All steps are saved in {self.checkpoints}: run.resume=true goes on"
        if trouble := self.world.from_leader(trouble):
            raise AfaError(trouble)

    def resume(self) -> int:
        """Bring everything to the newest checkpoint where run.resume is set. Returns the steps done, 0 without one.

        `run` calls it; called before, it isn't done twice. Raises AfaError where the checkpoint doesn't fit.
        """
        if self.resumed_from is None:
            self.tokens = self.round.decoder.tokens = PassTokens()
            self.resumed_from = self._restore() if self.config.run.resume else 0
        return self.resumed_from

    def _restore(self) -> int:
        checkpoint = newest_checkpoint(self.checkpoints, self.world)
        if checkpoint is None:  # as schedulers start, or a mistyped name
            self.world.tell(f"run.resume = true: no checkpoint in {self.checkpoints}, training starts at step 0")
            return 0
        done = int(checkpoint.state["step"])
        check_plan(checkpoint, self.batches, self.config.data.train.path)
        restore_run(checkpoint, self.engine, self.round)
        self.skips = Skips(checkpoint.state.get("skipped", 0), checkpoint.state.get("skipped_in_a_row", 0))
        self.sink = SinkWatch(checkpoint.state.get("sink"))
        if self.world.leads:  # the others start from 0: the sum over ranks is what was saved
            self.tokens.forward = int(checkpoint.state.get("forward_tokens", 0))
            self.tokens.backward = int(checkpoint.state.get("backward_tokens", 0))
        self.watch.earlier = float(checkpoint.state.get("seconds", 0.0))
        self.unvalidated = self.validate is not None and bool(checkpoint.state.get("unvalidated", False))
        self.last_metrics = self.world.from_leader(logged_at(self.folder, done) if self.world.leads else None)
        if self.validate and self.world.leads:  # it may have been the best when the run was killed, or be the best left
            mark_best(self.checkpoints, done, self.last_metrics.get("validation_loss", math.nan))
        return done

    def _all_tokens(self) -> tuple[int, int]:
        """Forward and backward tokens of all ranks since step 0; every rank calls it."""
        forward, backward = self.world.sum_numbers([float(self.tokens.forward), float(self.tokens.backward)])
        return round(forward), round(backward)

    def _load_best(self) -> int:
        """The trained weights of the best validation, in place of the last ones. Returns their step."""
        best = best_checkpoint(self.checkpoints, self.total_steps, self.world)
        if best is not None:
            self.engine.load_state(best.engine)
        return int(best.state["step"]) if best else self.total_steps

    def _summary(self, done: int, taken: int) -> TrainingSummary:
        settings, values = self.config.adversary, self.last_metrics
        auroc = values.get("adversary_auroc")
        raised = alarms(auroc, settings.auroc_high, settings.auroc_low) if auroc is not None else []
        forward, backward = self._all_tokens()
        return TrainingSummary(
            steps=self.total_steps,
            adapter_step=taken,
            reviews=len(self.prompts),
            seconds=self.watch.seconds,
            skipped_steps=self.skips.total,
            resumed_from=done,
            last_metrics=values,
            alarms=tuple(filter(None, [*raised, self.sink.alarm])),
            forward_tokens=forward,
            backward_tokens=backward,
            flops=pass_weights(self.round.decoder.model).flops(forward, backward),
        )
