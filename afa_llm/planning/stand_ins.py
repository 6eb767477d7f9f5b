"""What stands in for kernels that the meta device lacks. Each allocates and keeps what the real one does.

Attention: flash and memory-efficient kernels keep query, key, value, output, one float32 number per query and head, and
the mask as numbers of the query's type ([B, 1, T, T], without heads). Quantised layers: the weight is dequantised whole
in each pass; the 8-bit one also keeps its input (bitsandbytes' MatMul8bitLt). Experts: the product of groups keeps what
the gradient of the other factor is made of.

Legend: B rows, H heads, T tokens, D head size; E experts, S rows in the order of their experts, I and O widths.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import bitsandbytes as bnb
import torch
from torch import nn
from torch.nn import functional


@contextmanager
def attention_stand_in() -> Iterator[None]:
    """Inside the block, scaled_dot_product_attention allocates and keeps, and computes nothing.

    The function itself is exchanged: a TorchFunctionMode is off during backward, where checkpointing runs it again.
    """
    real = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _attention  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = real


@contextmanager
def autocast_stand_in() -> Iterator[None]:
    """Inside the block, torch.autocast does nothing on the meta device, which it does not know: peft switches it off
    around the weights of experts."""
    real = torch.autocast

    def autocast(device_type: str, *arguments: Any, **others: Any) -> Any:
        return nullcontext() if device_type == "meta" else real(device_type, *arguments, **others)

    torch.autocast = autocast  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        torch.autocast = real  # type: ignore[misc]


@contextmanager
def experts_stand_in() -> Iterator[None]:
    """Inside the block, the product of experts with their groups of rows allocates and keeps, and computes nothing.

    The meta device knows it in bfloat16 alone; in that type it stays as it is.
    """
    real = functional.grouped_mm

    def grouped(rows_SI: torch.Tensor, weight_EIO: torch.Tensor, **others: Any) -> torch.Tensor:
        known = rows_SI.dtype is torch.bfloat16 or rows_SI.device.type != "meta"
        product: torch.Tensor = real(rows_SI, weight_EIO, **others) if known else _Groups.apply(rows_SI, weight_EIO)
        return product

    functional.grouped_mm = grouped  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.grouped_mm = real


class _Groups(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_SI: torch.Tensor, weight_EIO: torch.Tensor) -> torch.Tensor:
        wants_rows, wants_weight = ctx.needs_input_grad
        ctx.save_for_backward(rows_SI if wants_weight else None, weight_EIO if wants_rows else None)
        ctx.shapes = rows_SI.shape, weight_EIO.shape
        return rows_SI.new_empty(rows_SI.shape[0], weight_EIO.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        wanted = zip(ctx.shapes, ctx.needs_input_grad, strict=True)
        return tuple(gradients[0].new_empty(shape) if wants else None for shape, wants in wanted)


def _attention(query_BHTD: Any, key: Any, value: Any, attn_mask: Any = None, **others: Any) -> torch.Tensor:
    bias = None if attn_mask is None else query_BHTD.new_empty(attn_mask.shape)
    output: torch.Tensor = _Attention.apply(query_BHTD, key, value, bias)
    return output


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_BHTD: Any, key: Any, value: Any, bias: Any) -> torch.Tensor:
        output_BHTD = torch.empty_like(query_BHTD)
        normaliser_BHT = query_BHTD.new_empty(query_BHTD.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query_BHTD, key, value, bias, output_BHTD, normaliser_BHT)
        return output_BHTD

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return *(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3]), None


class _QuantizedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shape: tuple[int, int], keeps_input: bool) -> torch.Tensor:
        ctx.shape, ctx.kept = shape, x if keeps_input else None
        dequantised = x.new_empty(shape)
        output = x.new_empty((*x.shape[:-1], shape[0]))
        del dequantised
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        dequantised = gradients[0].new_empty(ctx.shape)
        gradient = gradients[0].new_empty((*gradients[0].shape[:-1], ctx.shape[1]))
        del dequantised
        return gradient, None, None


def replace_quantized_products(model: nn.Module, dtype: torch.dtype) -> None:
    """Every bitsandbytes layer of the model from now on runs its stand-in, in the compute type."""
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt):
            module.forward = _forward_of(module, dtype)  # type: ignore[method-assign]


def _forward_of(module: Any, dtype: torch.dtype) -> Any:
    shape, keeps_input = (module.out_features, module.in_features), isinstance(module, bnb.nn.Linear8bitLt)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return _QuantizedProduct.apply(x.to(dtype), shape, keeps_input).to(x.dtype)

    return forward
