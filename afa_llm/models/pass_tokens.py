"""How much a decoder has computed: tokens that went through its layers, and floating-point operations from them.

A forward pass takes 2 operations for each weight and token, a backward pass 2 for the gradient of the activations and 2
for that of the weight where the weight is trained (Kaplan et al. 2020, arXiv 2001.08361, section 2.1). So with P frozen
weights in matrix products and A weights of the adapter:

    FLOPs = (2·P + 2·A) · forward tokens + (2·P + 4·A) · backward tokens

Counted are the linear layers that every token passes, and of a mixture of experts as many experts as compute a token.
Left out, as usual: embeddings, the output layer (it reads one position of each prompt), norms, routers, products of
attention with itself (4·T·D a token and layer), recomputation under gradient checkpointing, dequantisation, and the
adversary's small head. Padding counts: it is computed.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn

from afa_llm.models.text_parts import text_parts

EXPERTS_PASSED = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_top_k")
"""How config.json says to how many experts a token is sent: most families, Gemma 4, Aria, DBRX."""


@dataclass
class PassTokens:
    """Tokens, padding included, that went forward, and those that also went backward. Whoever passes adds."""

    forward: int = 0
    backward: int = 0

    def add(self, tokens: int, differentiable: bool) -> None:
        self.forward += tokens
        self.backward += tokens if differentiable else 0


@dataclass(frozen=True)
class PassWeights:
    """Weights in the matrix products of one token's way through the layers: of the frozen base, of the adapter."""

    base: int
    adapter: int

    def flops(self, forward_tokens: float, backward_tokens: float) -> float:
        """By the formula on top of this file."""
        forward = 2 * (self.base + self.adapter) * forward_tokens
        return float(forward + (2 * self.base + 4 * self.adapter) * backward_tokens)


def pass_weights(model: nn.Module) -> PassWeights:
    """Counted by the shapes that the layers were made with, so that packed 4-bit and sharded weights count alike.

    Experts that are linear layers of their own count all, though a token passes few.
    """
    output_layer, text = model.get_output_embeddings(), text_parts(model)  # type: ignore[operator]
    base = adapter = 0
    for name, module in model.named_modules():
        passed = module is not output_layer and not hasattr(module, "base_layer") and f"{name}.".startswith(text)
        size = _size(module) if passed else 0
        if ".lora_" in name:
            adapter += size
        elif not name.endswith("lm_head.base_layer"):
            experts = "experts" in name.split(".") or hasattr(module, "num_experts")
            base += size + (_active_experts(module, model.config) if experts else 0)
    return PassWeights(base, adapter)


def _size(module: nn.Module) -> int:
    """Weights of a linear layer, by whichever names its kind gives its two widths (`nx`, `nf`: GPT-2's Conv1D)."""
    for first, second in (("in_features", "out_features"), ("nx", "nf")):
        if isinstance(getattr(module, first, None), int) and isinstance(getattr(module, second, None), int):
            return int(getattr(module, first) * getattr(module, second))
    return 0


def _active_experts(module: nn.Module, config: Any) -> int:
    """Weights that a token passes of experts which lie in one tensor [experts, out, in].

    Experts that are handed the hidden states alone know of no choice: all of them compute each token (Llama 4).
    """
    several = [p for p in module.parameters(recurse=False) if p.dim() == 3 or len(getattr(p, "ds_shape", ())) == 3]
    shapes = [tuple(getattr(p, "ds_shape", p.shape)) for p in several]  # ZeRO-3 leaves nothing of p itself
    told = (getattr(config.get_text_config(), name, None) for name in EXPERTS_PASSED)
    passed = next((count for count in told if isinstance(count, int)), None)
    if len(inspect.signature(type(module).forward).parameters) <= 2:
        passed = None
    return sum(min(passed or experts, experts) * rows * columns for experts, rows, columns in shapes)
