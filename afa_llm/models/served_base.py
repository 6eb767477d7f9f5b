"""The base as an engine can serve it: the 4-bit weights of training unpacked into ordinary ones.

An engine that serves the original weights answers by another model than the one in training (by as much as 4 bits
round away). Served unpacked, both sides have the same weights; the engine needs the room of the unquantised model.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from afa_llm.config_running import Model
from afa_llm.errors import AfaError
from afa_llm.models.adapters import load_base, load_tokenizer, model_location
from afa_llm.models.compute_type import torch_dtype
from afa_llm.models.load_failures import first_reason

ORIGIN = "unpacked_from.json"
"""In the folder: what it was unpacked from."""
DECIDES = ("path", "revision", "quantization", "double_quantization", "quant_storage")
"""Of `model`: what the unpacked weights depend on, beside their type."""


def save_dequantised(settings: Model, folder: Path) -> None:
    """The quantised base of `settings`, unpacked, as safetensors in `settings.dtype`, with its tokenizer.

    The folder appears whole or not at all; one of the same weights is kept, one of others is replaced (a resumed run
    may have another model.path; of a hub name whose main branch moved on nothing is seen). Takes the unquantised
    model's size on disk and, for a moment, in memory. Raises AfaError where the model can't be loaded, or the folder
    not written.
    """
    from safetensors import SafetensorError
    from transformers import GenerationConfig

    device = torch.device("cpu")
    origin = _origin(settings, device)
    if _told_origin(folder) == origin:
        return
    partial = folder.with_name(f".{folder.name}_partial")
    shutil.rmtree(partial, ignore_errors=True)
    base = load_base(settings, device)
    whole = base.dequantize(dtype=torch_dtype(settings, device))  # type: ignore[operator]
    if hasattr(whole.config, "quantization_config"):
        del whole.config.quantization_config
    # How to sample is none of an engine's business here, and transformers refuses to save settings that contradict each
    # other, as many models bring them (a temperature beside do_sample = false); what ends a text is kept.
    whole.generation_config = GenerationConfig(eos_token_id=whole.generation_config.eos_token_id)
    try:
        whole.save_pretrained(partial, safe_serialization=True)
        load_tokenizer(settings).save_pretrained(partial)
        (partial / ORIGIN).write_text(json.dumps(origin), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise AfaError(
            f"rollouts.serve = dequantised: the unpacked base cannot be written to {folder}: {first_reason(error)}"
        ) from error


def _origin(settings: Model, device: torch.device) -> dict[str, Any]:
    """What the unpacked weights are made of; a folder's files by name, size and time of change."""
    place = Path(model_location(settings.path))
    files = sorted(file for file in place.iterdir() if file.is_file()) if place.is_dir() else []
    told: dict[str, Any] = {name: getattr(settings, name) for name in DECIDES}
    told |= {"dtype": str(torch_dtype(settings, device)), "folder": str(place.resolve()) if files else ""}
    return told | {"files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]}


def _told_origin(folder: Path) -> Any:
    """None where there is no such folder, or it does not say."""
    try:
        return json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
