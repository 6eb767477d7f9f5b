"""The model of a run on the meta device: every module and shape that `load_base` would give, and no weights.

Only config.json is read. The quantiser of transformers itself replaces the layers, and peft attaches the adapter, so
that skip lists, tied weights and target modules are theirs, not copies of their rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from afa_llm.config_running import Model
from afa_llm.errors import AfaError
from afa_llm.models import attention_capture
from afa_llm.models.adapters import model_location, quantization
from afa_llm.models.attention_capture import CAPTURE, CAPTURE_EAGER
from afa_llm.models.compute_type import torch_dtype
from afa_llm.models.load_failures import refuse_half, refuse_unmasked, unloadable
from afa_llm.models.packed_files import settle_packed


@dataclass(frozen=True)
class Blueprint:
    """`model`: the frozen base on the meta device. `file_bytes`: its safetensors (as config.json says where the folder
    has none yet). `file_dtype`: the type they are stored in, as far as config.json says."""

    model: Any
    file_bytes: int
    file_dtype: torch.dtype


def blueprint(settings: Model) -> Blueprint:
    """The base of a run without its weights. Raises AfaError where config.json cannot be had or is no causal LM."""
    from transformers import AutoConfig, AutoModelForCausalLM

    attention_capture.register()
    where, dtype = model_location(settings.path), torch_dtype(settings, torch.device("cpu"))
    family = "its family"
    try:
        config = AutoConfig.from_pretrained(where, revision=settings.revision, trust_remote_code=False)
        family = f"model type {config.model_type}"
        refuse_half(config, settings.path)
        refuse_unmasked(config, settings.path)
        settle_packed(config, settings, dtype)
        stored = config.dtype if isinstance(config.dtype, torch.dtype) else dtype
        eager = settings.attention == "eager" or attention_capture.needs_eager(config.get_text_config())
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation=CAPTURE_EAGER if eager else CAPTURE, trust_remote_code=False
            )
        file_bytes = _bytes_of_files(Path(where)) or stored.itemsize * sum(p.numel() for p in model.parameters())
        _quantize(model, settings, dtype)
    except AfaError:
        raise
    except Exception as error:  # a broken config breaks in any way, as in load_base
        raise AfaError(unloadable(settings.path, "model", error, family)) from error
    model.requires_grad_(False)
    model.config.use_cache = False
    return Blueprint(model, file_bytes, stored)


def _bytes_of_files(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0


def _quantize(model: Any, settings: Model, dtype: torch.dtype) -> None:
    from transformers.quantizers.auto import AutoHfQuantizer

    wanted = quantization(settings, dtype)
    if wanted is not None:
        quantizer = AutoHfQuantizer.from_config(wanted)
        quantizer.preprocess_model(model=model, dtype=dtype, device_map={"": "cpu"})
        quantizer.postprocess_model(model)
