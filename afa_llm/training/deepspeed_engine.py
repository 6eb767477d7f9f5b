"""DeepSpeed behind the engine protocol: ZeRO 0-3, NCCL or gloo. The door to deepspeed.

One DeepSpeed engine only, for the decoder: two engines in one graph break. The adapter stays float32 under every stage,
so DeepSpeed's own mixed precision is off; the base computes in its own type.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from afa_llm.config_running import Training
from afa_llm.errors import AfaError
from afa_llm.training.distributed import World
from afa_llm.training.engine import StepOutcome, every_gradient, optimizer_groups, refuse_misfits

OURS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
SETTLED = ("optimizer", "scheduler", "fp16", "bf16", "bfloat16", "torch_autocast")
"""Sections that are the run's own: the last four would take the adapter out of float32."""
ZERO = "zero_optimization"
MOMENTS = ("exp_avg", "exp_avg_sq")


def deepspeed_settings(settings: Training, world: World) -> dict[str, Any]:
    """The DeepSpeed configuration of a run: the user's file with our settings on top.

    Raises AfaError where the file is unreadable or contradicts ours.
    """
    merged = _read(settings.deepspeed_file) if settings.deepspeed_file else {}
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": settings.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # our step() is the boundary, whatever the number of backwards
        "gradient_clipping": settings.max_grad_norm,
        "steps_per_print": 10**9,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW with offload too: nothing to compile, one set of numbers
    }
    for key in OURS:
        if key in merged and merged[key] not in ("auto", ours.get(key)):
            raise AfaError(
                f"{settings.deepspeed_file}: {key} = {merged[key]} contradicts the run's own settings; take it out and "
                "set training.micro_batch_size, training.reviews_per_step or training.max_grad_norm"
            )
        merged.pop(key, None)
    for section in SETTLED:
        if section in merged:
            raise AfaError(f"{settings.deepspeed_file}: section {section} is the run's own; take it out")
    _refuse_unread(settings.deepspeed_file, merged)
    zero = merged.setdefault("zero_optimization", {})
    if not isinstance(zero, dict):
        raise AfaError(f"{settings.deepspeed_file}: zero_optimization = {zero}: must be an object of settings")
    if zero.get("stage", settings.zero_stage) not in (settings.zero_stage, "auto"):
        raise AfaError(
            f"{settings.deepspeed_file}: zero_optimization.stage = {zero['stage']!r} but training.zero_stage = "
            f"{settings.zero_stage}; set them alike"
        )
    zero["stage"] = settings.zero_stage
    if settings.zero_stage < 2:
        zero.pop("overlap_comm", None)
    elif world.device.type == "cpu":
        zero.setdefault("overlap_comm", False)
    return merged | ours


class DeepSpeedEngine:
    """One decoder under DeepSpeed. Raises AfaError on all ranks for a `training.deepspeed_file` that it cannot take."""

    def __init__(self, model: nn.Module, settings: Training, world: World) -> None:
        import deepspeed

        self.names = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.world = world
        self.stage = settings.zero_stage
        self.keeps_graph = self.stage < 3  # stage 3 gathers parameters in a traced order
        optimizer = torch.optim.AdamW(
            optimizer_groups(model, settings.weight_decay), lr=settings.learning_rate, betas=settings.betas
        )
        merged = deepspeed_settings(settings, world)
        try:
            self.engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=merged)
        except (AssertionError, ValueError, deepspeed.DeepSpeedConfigError) as error:
            if not settings.deepspeed_file:
                raise
            reason = " ".join(str(error).split())[:400]
            raise AfaError(f"{settings.deepspeed_file}: DeepSpeed does not take it: {reason}") from error
        if self.stage > 0:
            self._make_moments()
        if self.stage in (1, 2):
            self.engine.optimizer.check_grad_overflow = True  # in float32 DeepSpeed would step on NaN
        self.forward: Callable[..., Any] = self.engine

    def backward(self, loss: torch.Tensor) -> None:
        # DeepSpeed averages over ranks; losses are shares of a global mean and must be summed.
        self.engine.backward(loss * self.world.size, scale_wrt_gas=False)

    def step(self, learning_rate: float) -> StepOutcome:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        return self._step_unsharded() if self.stage == 0 else self._step_sharded()

    def _step_unsharded(self) -> StepOutcome:
        """Stage 0 has no check of its own, and reduces only inside step(): reduce here, then decide alike everywhere.

        DeepSpeed's own reduction then averages equal gradients, which changes nothing.
        """
        gradients = every_gradient(self.names.values())
        self.world.sum_tensors(gradients)
        for gradient in gradients:
            gradient /= self.world.size
        norm = torch.nn.utils.get_total_norm(gradients)
        if not norm.isfinite():
            self.engine.zero_grad()
            return StepOutcome(float(norm), applied=False)
        self.engine.step()
        return StepOutcome(float(norm), applied=True)

    def _step_sharded(self) -> StepOutcome:
        self.engine.step()
        optimizer = self.engine.optimizer
        return StepOutcome(float(optimizer._global_grad_norm), applied=not optimizer.overflow)

    def state(self) -> dict[str, torch.Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        found, step = {}, self._optimizer_step()
        for name, parameter in self.names.items():
            if self.stage == 0:
                full = [parameter.detach(), *(self._moment(parameter, key) for key in MOMENTS)]
            else:
                full = [safe_get_full_fp32_param(parameter)]
                full += [safe_get_full_optimizer_state(parameter, key) for key in MOMENTS]
            for key, tensor in zip(("weight", *MOMENTS), full, strict=True):
                found[f"{name}|{key}"] = tensor.detach().float().cpu().clone()
            found[f"{name}|step"] = torch.tensor(step)
        return found

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        refuse_misfits(state, self.names)
        for name, parameter in self.names.items():
            full = {key: state[f"{name}|{key}"].to(self.world.device) for key in ("weight", *MOMENTS)}
            if self.stage == 0:
                parameter.data.copy_(full["weight"])
                self.engine.optimizer.state[parameter] = {"step": state[f"{name}|step"].clone()} | {
                    key: full[key].clone() for key in MOMENTS
                }
                continue
            if self.stage == 3:
                safe_set_local_fp32_param(parameter, self._shard(full["weight"]))
                for key in MOMENTS:
                    safe_set_local_optimizer_state(parameter, self._shard(full[key]), key)
            else:
                safe_set_full_fp32_param(parameter, full["weight"])
                for key in MOMENTS:
                    safe_set_full_optimizer_state(parameter, full[key], key)
            with self.whole([parameter], writes=True):  # the working copy beside the sharded one
                parameter.data.copy_(full["weight"])
        if self.stage > 0:
            for moments in self.engine.optimizer.optimizer.state.values():
                moments["step"] = state[f"{next(iter(self.names))}|step"].clone()

    def whole(self, parameters: Sequence[torch.Tensor], *, writes: bool = False) -> AbstractContextManager[Any]:
        """Parameters gathered from their shards inside the block (stage 3; else they are whole anyway)."""
        if self.stage < 3:
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0 if writes else None)

    def _shard(self, full: torch.Tensor) -> torch.Tensor:
        """This rank's equal part, padded. Stage 3's own setter of full tensors forgets the padding of the last part."""
        missing = -full.numel() % self.world.size
        return torch.nn.functional.pad(full.flatten(), (0, missing)).chunk(self.world.size)[self.world.rank]

    def _make_moments(self) -> None:
        """Zero moments from the start, which DeepSpeed makes or links to parameters only at a first step."""
        optimizer = self.engine.optimizer
        if self.stage == 3:
            shards = optimizer.fp32_partitioned_groups_flat  # the inner optimizer knows none between its steps
        else:
            shards = [shard for group in optimizer.optimizer.param_groups for shard in group["params"]]
        for shard in shards:
            zeros = {key: torch.zeros_like(shard) for key in MOMENTS}
            optimizer.optimizer.state[shard] = {"step": torch.tensor(0.0)} | zeros
        if self.stage < 3:
            optimizer._lazy_init_hp_params_optimizer_state()

    def _moment(self, parameter: torch.Tensor, key: str) -> torch.Tensor:
        return self.engine.optimizer.state.get(parameter, {}).get(key, torch.zeros_like(parameter))

    def _optimizer_step(self) -> float:
        inner = self.engine.optimizer if self.stage == 0 else self.engine.optimizer.optimizer
        steps = [float(moments["step"]) for moments in inner.state.values() if "step" in moments]
        return max(steps, default=0.0)


def _refuse_unread(file: str | None, merged: Mapping[str, Any]) -> None:
    """Raises AfaError for what DeepSpeed would pass over in silence: it checks the keys inside its sections, not the
    sections. An offload that is not there is met as a full memory, hours later."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    for key in merged:
        if key in DeepSpeedZeroConfig.model_fields:
            raise AfaError(
                f"{file}: {key} stands outside of zero_optimization, where DeepSpeed reads it; move it there"
            )
        if key != ZERO and (key == "zero" or difflib.get_close_matches(key, [ZERO], 1, 0.75)):
            raise AfaError(f"{file}: section {key} is none that DeepSpeed reads; did you mean {ZERO}?")


def _read(path: str) -> dict[str, Any]:
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AfaError(f"training.deepspeed_file = {path}: no such file") from None
    except (OSError, ValueError) as error:
        raise AfaError(f"training.deepspeed_file = {path}: not readable as JSON: {error}") from None
    if not isinstance(values, dict):
        raise AfaError(f"training.deepspeed_file = {path}: a DeepSpeed configuration is a JSON object")
    return values
