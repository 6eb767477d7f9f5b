"""What really lives in memory: storages of loaded models, and a random Llama of a few million parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM


def loaded_bytes(model: nn.Module) -> int:
    """Every storage that a loaded model holds, once: parameters, buffers, scales and tables of quantised weights."""
    tensors: list[Any] = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            tensors += [state.absmax, state.code, state.offset]
            tensors += [state.state2.absmax, state.state2.code] if state.state2 is not None else []
        tensors.append(getattr(parameter, "SCB", None))
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors if t is not None}
    return sum(storages.values())


def save_random_llama(folder: Path) -> Path:
    """4.0M parameters in bfloat16, output layer untied."""
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def save_shape(folder: Path, **sizes: int) -> Path:
    """The config.json of a Llama, without weights."""
    LlamaConfig(**sizes, tie_word_embeddings=False, dtype="bfloat16").save_pretrained(folder)
    return folder


LLAMA_7B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
LLAMA_70B = {
    "vocab_size": 128256,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
