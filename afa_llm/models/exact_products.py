"""Products of half-precision operands whose results stay float32.

A bfloat16 matrix product adds up in float32 and rounds what it found: logits of 15 to steps of 0.06, so that label
answers tie and a mask that moves them a little seems to move nothing, and attention scores of a thousand to steps of 4.
What is read from the model is computed here without that rounding. Operands are upcast in passing and never kept
upcast: autograd holds the half-precision tensors that are there anyway. Source: our choice.

Legend: M rows, N columns, D shared size, V vocabulary; ... batch sizes, the same in both operands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)

CHUNK = 2**24
"""Numbers of the right operand that are upcast at a time: 64 MiB."""


def exact_product(left_MD: Tensor, right_ND: Tensor) -> Tensor:
    """left · rightᵀ, [..., M, N] in float32, differentiable in both; gradients in the operands' own type. Of operands
    that are float32 or float64 already it is the plain product."""
    if left_MD.dtype not in HALF and right_ND.dtype not in HALF:
        return left_MD @ right_ND.mT
    product: Tensor = _ExactProduct.apply(left_MD, right_ND)
    return product


def keep_logits_exact(output_layer: nn.Module) -> None:
    """Make a model's output layer give float32 logits of its half-precision weights.

    In the layer's own forward, so that ZeRO-3 gathers the weight for it and what the family does to logits afterwards
    (scaling, a soft cap) is float32 too. A layer that is float32, quantised, adapted or trained stays as it is.
    """
    weight = getattr(output_layer, "weight", None)
    if type(output_layer) is nn.Linear and weight is not None and weight.dtype in HALF:
        own_forward = output_layer.forward

        def forward(hidden: Tensor) -> Tensor:
            if output_layer.weight.requires_grad or hidden.dtype != output_layer.weight.dtype:
                return own_forward(hidden)
            logits = exact_product(hidden.flatten(0, -2), output_layer.weight).unflatten(0, hidden.shape[:-1])
            return logits if output_layer.bias is None else logits + output_layer.bias.float()

        output_layer.forward = forward  # type: ignore[method-assign, assignment]


class _ExactProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left_MD: Tensor, right_ND: Tensor) -> Tensor:
        ctx.save_for_backward(left_MD, right_ND)
        left = left_MD.float()
        return torch.cat([left @ part.float().mT for part in _parts(right_ND)], dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad_MN,), (left_MD, right_ND) = grads, ctx.saved_tensors
        left_grad = right_grad = None
        if ctx.needs_input_grad[0]:
            left_grad, start = torch.zeros_like(left_MD, dtype=torch.float32), 0
            for part in _parts(right_ND):
                left_grad += grad_MN[..., start : start + part.shape[-2]] @ part.float()
                start += part.shape[-2]
            left_grad = left_grad.to(left_MD.dtype)
        if ctx.needs_input_grad[1]:
            right_grad = (grad_MN.mT @ left_MD.float()).to(right_ND.dtype)
        return left_grad, right_grad


def _parts(right_ND: Tensor) -> Iterator[Tensor]:
    rows = max(1, CHUNK // max(1, right_ND.numel() // max(1, right_ND.shape[-2])))
    yield from right_ND.split(rows, dim=-2)
