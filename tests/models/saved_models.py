"""Tiny models on disk, loaded as a run loads them, and adapters on top."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny_models import VOCABULARY, make_view, tiny_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import PreTrainedTokenizerFast

from afa_llm.config_running import Lora, Model
from afa_llm.models.adapters import attach_lora, load_base
from afa_llm.models.decoder import Decoder
from afa_llm.records import AnswerWords

CPU = torch.device("cpu")
STORAGES = ("nf4", "int8", "none")
ANSWERS = AnswerWords(("bad", "good"), ((5,), (6,)))


def save_tokenizer(folder: Path, **special: str) -> None:
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, VOCABULARY)}}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="</s>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def save_model(folder: Path, family: str = "llama", **changes: Any) -> Path:
    tiny_model(family, "eager", **changes).save_pretrained(folder)
    save_tokenizer(folder, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    return folder


def settings(folder: Path, quantization: str = "none", **changes: Any) -> Model:
    return Model(path=str(folder), quantization=quantization, dtype=changes.pop("dtype", "float32"), **changes)


def base_of(folder: Path, quantization: str = "none", **changes: Any) -> nn.Module:
    return load_base(settings(folder, quantization, **changes), CPU)


def with_lora(folder: Path, quantization: str = "none", seed: int = 0, **changes: Any) -> nn.Module:
    lora = Lora(rank=2, **changes)
    return attach_lora(base_of(folder, quantization), lora, seed=seed, gradient_checkpointing=False)


def trained(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def label_logprobs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return Decoder(model, (1,), 0).read(make_view([9, 5]), ANSWERS).label_logprob_BC


def stir(model: nn.Module) -> nn.Module:
    """An adapter that changes answers, as if trained."""
    with torch.no_grad():
        for i, (name, parameter) in enumerate(model.named_parameters()):
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(i))
    return model


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Packed weights read as bfloat16 hold NaN patterns, which never equal themselves."""
    return tensor.contiguous().flatten().view(torch.uint8)


def linears(model: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for name, module in model.named_modules() if isinstance(module, kind) and "lora" not in name]


def reweigh(file: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(file)
    change(weights)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, file, {"format": "pt"})
