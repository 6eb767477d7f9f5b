"""Loads the frozen base (quantised or not) and attaches, saves and loads its LoRA adapter. The door to bitsandbytes
and peft.
"""

from __future__ import annotations

import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from afa_llm.config_loading import resolve_builtin
from afa_llm.config_running import Lora, Model
from afa_llm.errors import AfaError
from afa_llm.models import attention_capture
from afa_llm.models.attention_capture import CAPTURE, CAPTURE_EAGER
from afa_llm.models.compute_type import torch_dtype
from afa_llm.models.kernels import choose_kernels
from afa_llm.models.load_failures import (
    check_complete,
    first_reason,
    refuse_adapter_beside,
    refuse_half,
    refuse_unmasked,
    unloadable,
)
from afa_llm.models.packed_files import settle_packed
from afa_llm.models.shard_index import check_shard_index
from afa_llm.models.text_parts import text_parts


def model_location(path: str) -> str:
    """Folder or hub name of a `model.path`; `builtin:pocket` is the packaged model."""
    return str(resolve_builtin(path, "models", "")) if path.startswith("builtin:") else path


def load_tokenizer(settings: Model) -> Any:
    """The model's tokenizer, left-padding, with a padding token. Raises AfaError where there is none."""
    from transformers import AutoTokenizer

    where = model_location(settings.path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=settings.revision, trust_remote_code=False)
    except Exception as error:  # a broken file breaks in any way, down to Rust's plain Exception
        raise AfaError(unloadable(settings.path, "tokenizer", error)) from error
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise AfaError(f"model.path = {settings.path}: the tokenizer has neither pad, eos nor unk token to pad with")
    return tokenizer


def load_base(settings: Model, device: torch.device) -> nn.Module:
    """The decoder with frozen weights on `device`, safetensors only, no remote code or LayerDrop, attention rows ready.

    Raises AfaError: not found, no safetensors, remote code wanted, no decoder, kernels missing, an adapter beside it,
    packed in another way than `settings` say, weights missing or of another shape than config.json says (transformers
    would draw the missing ones at random).
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    attention_capture.register()
    where = model_location(settings.path)
    dtype = torch_dtype(settings, device)
    choose_kernels(dtype, device)
    family = "its family"
    try:
        refuse_adapter_beside(where, settings.revision, settings.path)
        config = AutoConfig.from_pretrained(where, revision=settings.revision, trust_remote_code=False)
        family = f"model type {config.model_type}"
        refuse_half(config, settings.path)
        refuse_unmasked(config, settings.path)
        settle_packed(config, settings, dtype)
        _keep_all_layers(config.get_text_config())
        config.return_dict = config.get_text_config().return_dict = True  # some files ask for tuples; passes read names
        check_shard_index(where, settings.revision, settings.path, getattr(config, "transformers_weights", None))
        eager = settings.attention == "eager" or attention_capture.needs_eager(config.get_text_config())
        found: Any = AutoModelForCausalLM.from_pretrained(
            where,
            revision=settings.revision,
            config=config,
            dtype=dtype,
            attn_implementation=CAPTURE_EAGER if eager else CAPTURE,
            quantization_config=quantization(settings, dtype),
            device_map={"": device},
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told by check_complete, with names
        )
    except AfaError:
        raise
    except Exception as error:  # as above
        raise AfaError(unloadable(settings.path, "model", error, family)) from error
    model, loaded = found
    check_complete(model, loaded, settings.path)
    keep_cpu_weights_unpacked(model)
    model.requires_grad_(False)
    model.config.use_cache = False
    return model


def _keep_all_layers(config: Any) -> None:
    """Without LayerDrop (OPT, BioGPT; Fan et al. 2019, arXiv 1909.11556): a layer that a training pass leaves out has
    no attention row, and its adapter no gradient on this rank while it has one on others."""
    for rate in ("layerdrop", "decoder_layerdrop"):
        if getattr(config, rate, 0.0):
            setattr(config, rate, 0.0)


def attach_lora(model: nn.Module, settings: Lora, *, seed: int, gradient_checkpointing: bool) -> nn.Module:
    """The base with a fresh float32 LoRA adapter (its output starts at zero), the same for a seed on every rank.

    Raises AfaError where target_modules name no linear module of the model, and where the family takes no adapter
    there or no gradient checkpointing.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft divides it by the rank, a float is fine
        lora_dropout=settings.dropout,
        target_modules=_targets(model, settings),
        exclude_modules=_excluded(model) or None,
        task_type="CAUSAL_LM",
    )
    if gradient_checkpointing:
        try:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore
        except ValueError as error:
            raise AfaError(
                f"model.gradient_checkpointing = true: {first_reason(error)}; set model.gradient_checkpointing=false"
            ) from error
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")  # of GPT-2; peft sets it right by itself
        torch.manual_seed(seed)
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:  # such as projections that a Mamba kernel reads past the adapter
            raise AfaError(
                f"lora.target_modules = {settings.target_modules}: {first_reason(error).rstrip('.')}. This model "
                f"has linear modules {_names(_linear_modules(model))}; name those to adapt"
            ) from error
    return adapted.eval()  # peft leaves the base in eval and its own modules in training mode


def _targets(model: nn.Module, settings: Lora) -> str | list[str]:
    """What to adapt, in peft's words. Peft would pass over a name that fits nothing while another one does."""
    given = settings.target_modules
    if given == "all-linear":
        return given
    wanted = [given] if isinstance(given, str) else list(given)
    linear = _linear_modules(model)
    wrong = [name for name in wanted if not any(f".{each}".endswith(f".{name}") for each in linear)]
    if wrong or not wanted:
        raise AfaError(
            f"lora.target_modules = {given if isinstance(given, str) else wanted}: "
            f"{'no linear module is called ' + ', '.join(wrong) if wrong else 'names none'}; "
            f"this model has {_names(linear)} (or set all-linear)"
        )
    return wanted


def _linear_modules(model: nn.Module) -> list[str]:
    excluded = set(_excluded(model))
    return [name for name in _all_linear(model) if name not in excluded]


def _all_linear(model: nn.Module) -> list[str]:
    from transformers.pytorch_utils import Conv1D

    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def _excluded(model: nn.Module) -> list[str]:
    """Linear modules that take no adapter: routers, and what no prompt passes through (the vision tower of Gemma 3),
    where it would be kept, saved and served, and never learn."""
    text = text_parts(model)
    return [n for n in _all_linear(model) if _is_router(model.get_submodule(n)) or not f"{n}.".startswith(text)]


def _is_router(module: nn.Module) -> bool:
    """A linear layer of a family's own kind: routers of Phi-MoE and Llama 4 give several tensors, and an adapter around
    one breaks in its first pass."""
    return isinstance(module, nn.Linear) and type(module).__module__.startswith("transformers.models.")


def _names(modules: list[str]) -> str:
    return ", ".join(sorted({name.split(".")[-1] for name in modules}))


def save_adapter(model: nn.Module, folder: Path) -> None:
    """adapter_model.safetensors and adapter_config.json, then a check that every LoRA weight arrived.

    Under ZeRO-3 call it inside gathered parameters. Raises AfaError where it cannot be written (disk full),
    RuntimeError where a weight is missing or empty: an adapter without its weights once passed for a good one in a
    peer.
    """
    from safetensors import SafetensorError

    try:
        model.save_pretrained(str(folder), safe_serialization=True)  # type: ignore[operator]
        # safetensors makes files for their owner alone; an engine may run under another user.
        shutil.copymode(folder / "adapter_config.json", folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:  # safetensors tells of a full disk in its own way
        raise AfaError(f"{folder}: the adapter cannot be written: {first_reason(error)}") from error
    expected = sum(p.numel() for p in model.parameters() if p.requires_grad)
    sizes = [math.prod(shape) for shape in _saved_shapes(folder).values()]
    saved = sum(sizes)
    if saved < expected or 0 in sizes or not sizes:  # parameters that ZeRO-3 took away have no elements
        raise RuntimeError(f"{folder}: adapter holds {saved} of {expected} trained numbers; nothing may use it")


def check_adapter(folder: Path) -> None:
    """Raises AfaError where a folder holds no adapter; needs no model."""
    if not (folder / "adapter_config.json").exists() or not (folder / "adapter_model.safetensors").exists():
        raise AfaError(
            f"{folder}: no adapter here; name a folder with adapter_config.json and adapter_model.safetensors"
        )


def load_adapter(base: nn.Module, folder: Path, *, trainable: bool = False) -> nn.Module:
    """The base with a saved adapter. Raises AfaError where the folder holds none or it does not fit the base."""
    from peft import PeftModel, get_peft_model_state_dict

    check_adapter(folder)
    try:
        adapted = PeftModel.from_pretrained(base, str(folder), is_trainable=trainable, use_safetensors=True)
        saved = _saved_shapes(folder)
    except Exception as error:  # a broken file of a user's breaks in any way
        raise AfaError(f"{folder}: the adapter cannot be put on this model: {first_reason(error)}") from error
    if adapted.active_peft_config.is_prompt_learning:
        raise AfaError(
            f"{folder}: an adapter of kind {adapted.active_peft_config.peft_type.value} puts tokens of its own before "
            "the prompt, beside which the readout position cannot be found; give a LoRA adapter"
        )
    wanted = {name: tuple(weight.shape) for name, weight in get_peft_model_state_dict(adapted).items()}
    for names, what in (
        (wanted.keys() - saved, "has no weights for"),
        (saved.keys() - wanted, "has weights too many:"),
    ):
        if names:  # peft warns and goes on with a fresh adapter
            raise AfaError(
                f"{folder}: the adapter does not fit the model: it {what} {min(names)} ({len(names)} in all); load the "
                "model it was trained on"
            )
    return adapted.eval()


def _saved_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118


def keep_cpu_weights_unpacked(model: nn.Module) -> None:
    """Bitsandbytes repacks 4-bit weights in place in the first eval forward on AVX512-BF16 processors.

    Gradients of later training were 75 percent wrong then. Call after every load.
    """
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def quantization(settings: Model, dtype: torch.dtype) -> Any:
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
