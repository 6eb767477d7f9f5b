"""Everything the next step depends on, to a checkpoint and back.

Trained weights and optimizer moments (full tensors), the adversary with its optimizer and replay,
the window of held-out detections, and the step. The order of reviews, the masks, the noise of dropout, the step size
and the shares of ranks are pure functions of (seed, step), so there is nothing of them to save. (Checkpoints of earlier
versions hold the random state of every rank; it is left unread.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from afa_llm.errors import AfaError
from afa_llm.models.load_failures import first_reason
from afa_llm.training.adversarial_round import AdversarialRound
from afa_llm.training.checkpoint import Checkpoint, save_checkpoint
from afa_llm.training.distributed import World
from afa_llm.training.engine import Engine
from afa_llm.training.step_batches import StepBatches


def save_run(
    folder: Path,
    world: World,
    engine: Engine,
    adversarial_round: AdversarialRound,
    *,
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """A checkpoint after `state["step"]` steps; every rank calls it."""
    feedback = adversarial_round.feedback
    full = feedback.adversary.state_dict() if feedback.adversary else {}
    replay = full.pop("replay", {})
    return save_checkpoint(
        folder,
        world,
        state=dict(state) | {"held_out": list(feedback.held_out)},
        engine=engine.state(),
        adversary=full or None,
        rank_state={"replay": replay},
        keep=keep,
    )


def check_plan(checkpoint: Checkpoint, batches: StepBatches, reviews: str) -> None:
    """Raises AfaError where the checkpoint is of another plan: more steps than are planned, other `reviews`, or the
    same in another order."""
    for setting, was in checkpoint.state.get("order", {}).items():
        if (now := batches.identity["order"].get(setting, was)) != was:
            raise AfaError(
                f"run.resume = true: {checkpoint.path} was made with {setting} = {was}, now it is {now}: that changes "
                "the order of reviews in the middle of an epoch, some would come twice and others never; set "
                f"{setting}={was}, or choose another run.name"
            )
    done = int(checkpoint.state["step"])
    if done > batches.total:
        raise AfaError(
            f"run.resume = true: {checkpoint.path} stands after {done} steps, and {batches.total} are planned; "
            "set training.max_steps or training.epochs as they were, or choose another run.name"
        )
    if checkpoint.state.get("reviews", batches.identity["reviews"]) != batches.identity["reviews"]:
        raise AfaError(
            f"run.resume = true: {checkpoint.path} was made with other training reviews or prompts than "
            f"{reviews} gives now; bring them back as they were, or choose another run.name"
        )


def restore_run(checkpoint: Checkpoint, engine: Engine, adversarial_round: AdversarialRound) -> None:
    """Bring a run to where the checkpoint stood.

    With another number of ranks the replay shares of the old ranks are dealt out to the new ones, which changes nothing
    of what is drawn. Raises AfaError where model or adapter differ from those of the checkpoint.
    """
    try:
        engine.load_state(checkpoint.engine)
        _restore_adversary(checkpoint, adversarial_round)
    except (KeyError, RuntimeError, ValueError) as error:
        raise AfaError(
            f"{checkpoint.path}: does not fit this run's model, adapter or adversary ({first_reason(error)}); resume "
            "with the settings of its config.yaml"
        ) from None
    adversarial_round.feedback.held_out.extend((a, b) for a, b in checkpoint.state["held_out"])


def _restore_adversary(checkpoint: Checkpoint, adversarial_round: AdversarialRound) -> None:
    adversary = adversarial_round.feedback.adversary
    if adversary is None or checkpoint.adversary is None:
        return
    replay = adversary.replay.state_dict()
    shares = [state["replay"] for state in checkpoint.rank_states]
    if shares:
        replay = {name: torch.cat([share[name] for share in shares]) for name in replay}
    adversary.load_state_dict(checkpoint.adversary | {"replay": replay})


def undoing(adversarial_round: AdversarialRound) -> Callable[[], None]:
    """What takes a round back that is given up before the optimizer steps: what it has moved by then is the adversary
    with its replay, the window of held-out detections, and the count of tokens.

    Only rounds that wait for a generator are given up after the adversary has learned; else it needs no copy.
    """
    feedback, tokens = adversarial_round.feedback, adversarial_round.decoder.tokens
    adversary = feedback.adversary if adversarial_round.looker.generator is not None else None
    held_out, forward, backward = list(feedback.held_out), tokens.forward, tokens.backward
    before = adversary.state_dict() if adversary else {}
    replay = before.pop("replay", {})  # never changed in place, and the largest part
    before = copy.deepcopy(before)

    def undo() -> None:
        if adversary:
            adversary.load_state_dict(before | {"replay": replay})
        feedback.held_out.clear()
        feedback.held_out.extend(held_out)
        tokens.forward, tokens.backward = forward, backward

    return undo
