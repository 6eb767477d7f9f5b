"""Who owns the optimizer: a small protocol, and the plain single-process engine.

Losses arrive already divided by global counts, so that gradients of ranks and micro-batches simply add up. The trained
weights and AdamW's moments leave and enter an engine as full named tensors, whatever is sharded inside: a checkpoint
fits any world size, ZeRO stage and engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from afa_llm.config_running import Training


@dataclass(frozen=True)
class StepOutcome:
    """`grad_norm`: of the whole gradient before clipping. `applied` is False where it was not finite: nothing moved."""

    grad_norm: float
    applied: bool


class Engine(Protocol):
    """Gradients in, steps out; the same decision on every rank."""

    keeps_graph: bool  # whether no-grad passes may run between a forward and its backward
    forward: Callable[..., Any]

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of this rank's share of the loss."""
        ...

    def step(self, learning_rate: float) -> StepOutcome:
        """Sum gradients over ranks, clip, step and clear; skip where the gradient is not finite."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Full trained weights and moments on the CPU: `<name>|weight`, `|exp_avg`, `|exp_avg_sq`, `|step`."""
        ...

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """The reverse of `state`. Raises KeyError where a name is missing or left over, ValueError for a shape."""
        ...

    def whole(self, parameters: Sequence[torch.Tensor], *, writes: bool = False) -> AbstractContextManager[Any]:
        """Parameters whole inside the block, whatever is sharded; `writes` keeps rank 0's changes."""
        ...


def refuse_misfits(state: Mapping[str, torch.Tensor], parameters: Mapping[str, torch.Tensor]) -> None:
    """Raises KeyError where a checkpoint holds weights that are not trained now: to go on would lose them; ValueError
    where a weight has another shape: a copy would repeat an adapter of rank 1 to any rank."""
    left = sorted({key.rpartition("|")[0] for key in state} - set(parameters))
    if left:
        raise KeyError(f"{left[0]} is in it and not trained now, {len(left)} weights in all")
    for name, parameter in parameters.items():
        found, wanted = tuple(state[f"{name}|weight"].shape), tuple(getattr(parameter, "ds_shape", parameter.shape))
        if found != wanted:
            raise ValueError(f"{name} has shape {list(found)} in it, now {list(wanted)}")


def optimizer_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trained parameters: matrices decay, vectors do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def every_gradient(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    """The gradient of each parameter, made 0 where nothing of this rank's share came through it: all ranks must sum as
    many numbers, and AdamW must step alike under every engine and stage."""
    found = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    return found


class PlainEngine:
    """AdamW in one process."""

    keeps_graph = True

    def __init__(self, model: nn.Module, settings: Training) -> None:
        self.forward: Callable[..., Any] = model
        self.names = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.max_grad_norm = settings.max_grad_norm
        groups = optimizer_groups(model, settings.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)

    def whole(self, parameters: Sequence[torch.Tensor], *, writes: bool = False) -> AbstractContextManager[Any]:
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self, learning_rate: float) -> StepOutcome:
        every_gradient(self.names.values())
        norm = torch.nn.utils.clip_grad_norm_(list(self.names.values()), self.max_grad_norm)
        applied = bool(norm.isfinite())
        if applied:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepOutcome(float(norm), applied)

    def state(self) -> dict[str, torch.Tensor]:
        found = {}
        for name, parameter in self.names.items():
            moments = self.optimizer.state.get(parameter, {})
            found[f"{name}|weight"] = parameter.detach().cpu().clone()
            for key in ("exp_avg", "exp_avg_sq"):
                found[f"{name}|{key}"] = moments.get(key, torch.zeros_like(parameter)).detach().cpu().clone()
            found[f"{name}|step"] = torch.as_tensor(moments.get("step", 0.0)).detach().cpu().clone()
        return found

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        refuse_misfits(state, self.names)
        for name, parameter in self.names.items():
            parameter.data.copy_(state[f"{name}|weight"])
            self.optimizer.state[parameter] = {
                "step": state[f"{name}|step"].clone(),
                "exp_avg": state[f"{name}|exp_avg"].to(parameter.device, copy=True),
                "exp_avg_sq": state[f"{name}|exp_avg_sq"].to(parameter.device, copy=True),
            }
