"""Loads the frozen base (quantised or not) and attaches, saves and loads its LoRA adapter. The door to bitsandbytes
and peft.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from afa_llm.config import Lora, Model
from afa_llm.config_loading import resolve_builtin
from afa_llm.errors import AfaError
from afa_llm.models import attention_capture


def model_location(path: str) -> str:
    """Folder or hub name of a `model.path`; `builtin:pocket` is the packaged model."""
    return str(resolve_builtin(path, "models", "")) if path.startswith("builtin:") else path


def load_tokenizer(settings: Model) -> Any:
    """The model's tokenizer, left-padding, with a padding token. Raises AfaError where there is none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model_location(settings.path), revision=settings.revision, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise AfaError(_unloadable(settings, "tokenizer", error)) from None
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise AfaError(f"model.path = {settings.path}: the tokenizer has neither pad, eos nor unk token to pad with")
    return tokenizer


def load_base(settings: Model, device: torch.device) -> nn.Module:
    """The decoder with frozen weights on `device`, safetensors only, no remote code, attention rows ready.

    Raises AfaError: not found, no safetensors, remote code wanted, no causal LM, kernels missing.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    attention_capture.register()
    where = model_location(settings.path)
    dtype = getattr(torch, settings.dtype)
    try:
        config = AutoConfig.from_pretrained(where, revision=settings.revision, trust_remote_code=False)
        eager = settings.attention == "eager" or attention_capture.needs_eager(config.get_text_config())
        model = AutoModelForCausalLM.from_pretrained(
            where,
            revision=settings.revision,
            config=config,
            dtype=dtype,
            attn_implementation=attention_capture.CAPTURE_EAGER if eager else attention_capture.CAPTURE,
            quantization_config=_quantization(settings, dtype),
            device_map={"": device},
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise AfaError(_unloadable(settings, "model", error)) from None
    keep_cpu_weights_unpacked(model)
    model.requires_grad_(False)
    model.config.use_cache = False
    return model


def attach_lora(model: nn.Module, settings: Lora, *, seed: int, gradient_checkpointing: bool) -> nn.Module:
    """The base with a fresh float32 LoRA adapter (its output starts at zero), the same for a seed on every rank.

    Raises AfaError where target_modules name no linear module of the model.
    """
    from peft import LoraConfig, get_peft_model

    targets = settings.target_modules
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft divides it by the rank, a float is fine
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            names = sorted({n.split(".")[-1] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
            raise AfaError(
                f"lora.target_modules = {targets}: {str(error).splitlines()[0][:160]}; "
                f"linear modules of this model are {', '.join(names)}"
            ) from None
    return adapted


def save_adapter(model: nn.Module, folder: Path) -> None:
    """adapter_model.safetensors and adapter_config.json, then a check that every LoRA weight arrived.

    Under ZeRO-3 call it inside gathered parameters. Raises RuntimeError where a weight is missing or empty: an adapter
    without its weights once passed for a good one in a peer.
    """
    from safetensors import safe_open

    model.save_pretrained(str(folder), safe_serialization=True)  # type: ignore[operator]
    expected = sum(p.numel() for p in model.parameters() if p.requires_grad)
    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        saved = sum(int(torch.tensor(weights.get_slice(k).get_shape()).prod()) for k in weights.keys())  # noqa: SIM118
    if saved < expected or saved == 0:
        raise RuntimeError(f"{folder}: adapter holds {saved} of {expected} trained numbers; nothing may use it")


def load_adapter(base: nn.Module, folder: Path, *, trainable: bool = False) -> nn.Module:
    """The base with a saved adapter. Raises AfaError where the folder holds none or it does not fit the base."""
    from peft import PeftModel

    if not (folder / "adapter_config.json").exists() or not (folder / "adapter_model.safetensors").exists():
        raise AfaError(
            f"{folder}: no adapter here; name a folder with adapter_config.json and adapter_model.safetensors"
        )
    try:
        return PeftModel.from_pretrained(base, str(folder), is_trainable=trainable, use_safetensors=True)
    except (RuntimeError, ValueError, OSError, json.JSONDecodeError) as error:
        raise AfaError(f"{folder}: the adapter does not fit the model: {str(error).splitlines()[0][:200]}") from None


def keep_cpu_weights_unpacked(model: nn.Module) -> None:
    """Bitsandbytes repacks 4-bit weights in place in the first eval forward on AVX512-BF16 processors.

    Gradients of later training were 75 percent wrong then. Call after every load.
    """
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _quantization(settings: Model, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if settings.quantization == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=settings.double_quantization,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=getattr(torch, settings.quant_storage),
        )
    return BitsAndBytesConfig(load_in_8bit=True) if settings.quantization == "int8" else None


def _unloadable(settings: Model, what: str, error: Exception) -> str:
    text = str(error)
    first = text.splitlines()[0][:240] if text else type(error).__name__
    if "trust_remote_code" in text:
        return (
            f"model.path = {settings.path}: this {what} wants to run code from its repository, which afa-llm never "
            "does; choose a family that transformers ships"
        )
    if "safetensors" in text:
        return f"model.path = {settings.path}: no safetensors weights; convert them first (pickled ones are refused)"
    return f"model.path = {settings.path}: the {what} cannot be loaded: {first}"
