"""Which of torch's kernels a process may use: set once, before the decoder computes anything."""

from __future__ import annotations

import torch


def choose_kernels(dtype: torch.dtype, device: torch.device) -> None:
    """For a decoder of this number type on this device; does nothing on a processor.

    cuDNN's attention is out: on Hopper its backward gives NaN for T % 128 == 64 where a mask has rows that see nothing,
    as left padding does (pytorch issue 196678, from 2.11; met here at T = 320 on an H200). Beside a bfloat16 base,
    float32 products (adapter, adversary) may take TF32: 10 bits of mantissa where the base has 7, on tensor cores.
    Beside a float32 base they stay exact (our choice).
    """
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.set_float32_matmul_precision("high" if dtype is torch.bfloat16 else "highest")
