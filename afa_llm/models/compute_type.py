"""Which number type a run computes in: `model.dtype`, or for `auto` what the machine is fast at.

A processor without bfloat16 instructions emulates them: the pocket model's round took 20 s in bfloat16 and 2 s in
float32 on such a machine (NOTES.md). Source: our choice.
"""

from __future__ import annotations

import torch

from afa_llm.config_running import Model


def has_bfloat16(device: torch.device) -> bool:
    """Whether this device computes products of bfloat16 in hardware: NVIDIA from compute capability 8.0, processors
    with AVX512-BF16, AMX or Arm's bf16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(present is True for name, present in found.items() if "bf16" in name)


def device_name(device: torch.device) -> str:
    """The device, and for a GPU which card it is: times and memory mean nothing without."""
    return f"{device}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def choose_dtype(settings: Model, *, native: bool) -> Model:
    """The settings with `auto` replaced: bfloat16 where it is native, else float32."""
    if settings.dtype != "auto":
        return settings
    return settings.model_copy(update={"dtype": "bfloat16" if native else "float32"})


def torch_dtype(settings: Model, device: torch.device) -> torch.dtype:
    """As a torch type; `auto` is chosen for this device alone."""
    chosen = choose_dtype(settings, native=settings.dtype == "auto" and has_bfloat16(device))
    found: torch.dtype = getattr(torch, chosen.dtype)
    return found
