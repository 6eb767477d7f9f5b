"""The base as an engine can serve it: the 4-bit weights of training unpacked into ordinary ones.

An engine that serves the original weights answers by another model than the one in training (by as much as 4 bits
round away). Served unpacked, both sides have the same weights; the engine needs the room of the unquantised model.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from afa_llm.config_running import Model
from afa_llm.errors import AfaError
from afa_llm.models.adapters import load_base, load_tokenizer
from afa_llm.models.compute_type import torch_dtype
from afa_llm.models.load_failures import first_reason


def save_dequantised(settings: Model, folder: Path) -> None:
    """The quantised base of `settings`, unpacked, as safetensors in `settings.dtype`, with its tokenizer.

    The folder appears whole or not at all; one that is there already is kept. Takes the unquantised model's size on
    disk and, for a moment, in memory. Raises AfaError where the model can't be loaded, or the folder not written.
    """
    from safetensors import SafetensorError

    if folder.exists():
        return
    partial = folder.with_name(f".{folder.name}_partial")
    shutil.rmtree(partial, ignore_errors=True)
    device = torch.device("cpu")
    base = load_base(settings, device)
    whole = base.dequantize(dtype=torch_dtype(settings, device))  # type: ignore[operator]
    if hasattr(whole.config, "quantization_config"):
        del whole.config.quantization_config
    try:
        whole.save_pretrained(partial, safe_serialization=True)
        load_tokenizer(settings).save_pretrained(partial)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise AfaError(
            f"rollouts.serve = dequantised: the unpacked base cannot be written to {folder}: {first_reason(error)}"
        ) from error
