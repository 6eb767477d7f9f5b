"""Files whose weights are quantised already: bitsandbytes ones are read as they are, others are refused.

Transformers reads them as they were packed, whatever `model` asks for. So the settings must say the same, for the plan,
the checks of ZeRO-3, the served base and the results go by them; only the compute type is free.
"""

from __future__ import annotations

from typing import Any

import torch

from afa_llm.config_running import Model
from afa_llm.errors import AfaError


def settle_packed(config: Any, settings: Model, dtype: torch.dtype) -> None:
    """Make packed files compute in the run's type, not in that of whoever packed them; nothing where none are packed.

    Raises AfaError for another packer than bitsandbytes, and where `settings` ask for another packing than the files
    have.
    """
    given: dict[str, Any] | None = getattr(config, "quantization_config", None)
    if not given:
        return
    start = f"model.path = {settings.path}: its files are quantised already"
    packer = str(given.get("quant_method", "bitsandbytes"))  # which once wrote no name
    packed = "int8" if given.get("load_in_8bit") else str(given.get("bnb_4bit_quant_type", "fp4"))
    if packer != "bitsandbytes" or packed == "fp4":
        raise AfaError(
            f"{start} ({packer if packer != 'bitsandbytes' else packed}), which afa-llm does not train on; name the "
            "model's unquantised files (model.quantization packs them while they are loaded)"
        )
    found: dict[str, Any] = {"quantization": packed}
    if packed == "nf4":
        # What bitsandbytes means where the file does not say.
        found["double_quantization"] = bool(given.get("bnb_4bit_use_double_quant", False))
        found["quant_storage"] = given.get("bnb_4bit_quant_storage") or "uint8"
    wrong = {name: value for name, value in found.items() if getattr(settings, name) != value}
    if wrong:
        wanted = " ".join(f"model.{name}={str(value).lower()}" for name, value in wrong.items())
        raise AfaError(f"{start}, in another way than the settings say; set {wanted}")
    given["bnb_4bit_compute_dtype"] = str(dtype).removeprefix("torch.")
