"""Tiny random decoders of many families, views for them, and the eager oracle of an attention row.

Legend: B rows, T tokens, H query heads, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from afa_llm.models import attention_capture
from afa_llm.records import View

VOCABULARY = 300
DEPTH = 3
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA3 = {"head_dim": 16, "sliding_window": 7, "query_pre_attn_scalar": 24}
TOWER = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
GPT2 = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 7},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "sliding_window": 7, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 0.5},
    "gemma3_text": GEMMA3,
    "gemma3": {  # with the vision tower that its larger models have
        "text_config": {**COMMON, **GEMMA3},
        "vision_config": {**TOWER, "image_size": 28, "patch_size": 14},
        "mm_tokens_per_image": 4,
    },
    "phi3": {"num_key_value_heads": 4},
    "gpt2": {"scale_attn_by_inverse_layer_idx": True, **GPT2},
    "qwen3_moe": {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
    "olmo2": {},
}


def tiny_config(family: str, **changes: Any) -> Any:
    return AutoConfig.for_model(family, **{**COMMON, **FAMILIES.get(family, {}), **changes})


def tiny_model(family: str, implementation: str | None = None, seed: int = 0, **changes: Any) -> nn.Module:
    """A random decoder; without `implementation` the capture that `load_base` would choose. Sharp: see below."""
    attention_capture.register()
    config = tiny_config(family, **changes)
    if implementation is None:
        eager = attention_capture.needs_eager(config.get_text_config())
        implementation = attention_capture.CAPTURE_EAGER if eager else attention_capture.CAPTURE
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
        with torch.no_grad():  # fresh weights are so small that all attention is near uniform: tests would see little
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "embed" not in name:
                    parameter.mul_(5)
    return model.eval()


def make_view(lengths: Sequence[int], *, blocked: Sequence[int] = (), extra: int = 0, seed: int = 0) -> View:
    """Left-padded random prompts. `blocked`: how far before the end keys are taken out (positions stay)."""
    T = max(lengths) + extra
    draw = torch.Generator().manual_seed(seed)
    mask_BT = torch.tensor([[0] * (T - n) + [1] * n for n in lengths])
    ids_BT = torch.randint(3, VOCABULARY, (len(lengths), max(lengths)), generator=draw)
    ids_BT = torch.cat([torch.zeros(len(lengths), extra, dtype=torch.long), ids_BT], 1) * mask_BT
    position_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
    for back in blocked:
        mask_BT[:, T - 1 - back] = 0
    words_BT = torch.full_like(ids_BT, -1)
    return View(ids_BT, mask_BT, position_BT, words_BT, torch.zeros(len(lengths), 1, dtype=torch.bool))


def eager_rows(model: nn.Module, view: View, position: int = -1) -> tuple[torch.Tensor, torch.Tensor]:
    """The oracle: rows [L, B, H, T] cut from the T×T matrices of plain eager attention, and all logits."""
    output = model(
        input_ids=view.input_ids_BT,
        attention_mask=view.attention_mask_BT,
        position_ids=view.position_BT,
        output_attentions=True,
        use_cache=False,
    )
    return torch.stack([attention[:, :, position] for attention in output.attentions]), output.logits


def gradients(model: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """All gradients of a loss in one vector."""
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
