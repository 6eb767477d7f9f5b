"""Attention rows of the readout position, differentiable, beside any attention kernel.

A decoder loaded with attn_implementation=CAPTURE runs SDPA as ever. Where the forward carries an `attention_rows`
request, each chosen layer also computes softmax(q_row · Kᵀ) for one query row: O(T) numbers per head, never T×T. The
request travels as a forward keyword, so that gradient checkpointing (non-reentrant) replays it; a context manager would
be gone by then.

Legend: B rows of the batch, H query heads, G key-value heads, T tokens, D head size.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from afa_llm.errors import AfaError
from afa_llm.models.exact_products import exact_product

CAPTURE = "afa_rows"
CAPTURE_EAGER = "afa_rows_eager"


class DeepEnough(Exception):  # noqa: N818 - a signal, not an error
    """Ends a no-grad forward after the deepest layer that anything reads."""


@dataclass(eq=False)
class RowRequest:
    """Which row of which layers a forward shall capture, and what it found.

    `position`: index of the query row, the same for the whole (left-padded) batch. `stop_after`: layer after which the
    forward may end (DeepEnough), or None. `value_norms`: whether the length of each token's value vector is kept too,
    [B, H, T] for each layer (the value of a query head is that of its key-value head). Close the request after the
    forward: the recomputation of gradient checkpointing repeats the arithmetic but stores nothing. Empty `found` once
    it is read: under checkpointing a row that stays there keeps the whole pass in memory.
    """

    layers: frozenset[int]
    position: int
    stop_after: int | None = None
    value_norms: bool = False
    norms: dict[int, torch.Tensor] = field(default_factory=dict)
    found: dict[int, torch.Tensor] = field(default_factory=dict)
    closed: bool = False


def register() -> None:
    """Make both implementations known to transformers, each with its mask function (without it padding is ignored)."""
    AttentionInterface.register(CAPTURE, _sdpa_with_rows)
    AttentionMaskInterface.register(CAPTURE, sdpa_mask)
    AttentionInterface.register(CAPTURE_EAGER, _eager_with_rows)
    AttentionMaskInterface.register(CAPTURE_EAGER, eager_mask)


def needs_eager(config: Any) -> bool:
    """Families whose attention scores are soft-capped (Gemma 2): SDPA cannot compute them."""
    return getattr(config, "attn_logit_softcapping", None) is not None


def attention_row(
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    mask: torch.Tensor | None,
    position: int,
    scaling: float | None,
    softcap: float | None = None,
) -> torch.Tensor:
    """softmax of one query row over all keys, [B, H, T] in float32, from scores in float32 (as SDPA keeps them).

    Query heads are grouped over their key-value head, so keys are not repeated. `mask` is [B|1, 1|H, T, T], boolean
    (True: take part) or additive, or None for plain causal.
    """
    B, H, T, D = query_BHTD.shape
    G = key_BGTD.shape[1]
    row_BGRD = query_BHTD[:, :, position].reshape(B, G, H // G, D)
    scores_BHT = exact_product(row_BGRD, key_BGTD).reshape(B, H, -1).float()
    scores_BHT = scores_BHT * (D**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores_BHT = torch.tanh(scores_BHT / softcap) * softcap
    lowest = torch.finfo(torch.float32).min
    if mask is None:
        later_T = torch.arange(T, device=scores_BHT.device) > position
        scores_BHT = scores_BHT.masked_fill(later_T, lowest)
    elif mask.dtype == torch.bool:
        scores_BHT = scores_BHT.masked_fill(~mask[:, :, position], lowest)
    else:
        scores_BHT = scores_BHT + mask[:, :, position].float()
    return scores_BHT.softmax(-1)


def _capture(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    extras: dict[str, Any],
) -> None:
    request: RowRequest | None = extras.pop("attention_rows", None)
    # In every layer, captured or not: SDPA would leave attention sinks out without a word.
    unknown = [name for name in ("position_bias", "s_aux") if extras.get(name) is not None]
    if unknown:
        family = type(module).__name__
        raise AfaError(f"model.path: {family} adds {', '.join(unknown)} to its attention, which the focus cannot read")
    # In the module, or in config.json, by which transformers makes the masks (embedders on the weights of decoders).
    if any(getattr(said, "is_causal", True) is False for said in (module, getattr(module, "config", None))):
        raise AfaError(
            f"model.path: {type(module).__name__} looks at later tokens too; choose a decoder (causal language model)"
        )
    layer = getattr(module, "layer_idx", None)
    if request is None or layer is None or layer not in request.layers:
        return
    row_BHT = attention_row(query, key, mask, request.position, scaling, extras.get("softcap"))
    if request.closed:
        return
    if layer in request.found:
        raise AfaError(
            f"model.path: {type(module).__name__} runs layer {layer} several times in a pass (a recurrent depth), and "
            "which of these the focus would be is not known; choose a decoder that runs each layer once"
        )
    request.found[layer] = row_BHT
    if request.value_norms:
        norm_BGT = value.detach().float().norm(dim=-1)
        request.norms[layer] = norm_BGT.repeat_interleave(row_BHT.shape[1] // norm_BGT.shape[1], dim=1)
    if request.stop_after == layer and not torch.is_grad_enabled():
        raise DeepEnough


def _sdpa_with_rows(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **extras: Any,
) -> tuple[torch.Tensor, None]:
    _capture(module, query, key, value, attention_mask, scaling, extras)
    if extras.get("softcap") is not None:
        raise AfaError(f"model.attention = sdpa: {type(module).__name__} caps its scores; set model.attention=eager")
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **extras
    )
    return output, None


def _eager_with_rows(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **extras: Any,
) -> tuple[torch.Tensor, None]:
    """The family's own eager attention (which knows its soft cap); its T×T matrix is not kept beyond the layer."""
    _capture(module, query, key, value, attention_mask, scaling, extras)
    own_eager = importlib.import_module(type(module).__module__).eager_attention_forward
    output, _ = own_eager(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **extras)
    return output, None
