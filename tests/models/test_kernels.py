"""The kernels that a decoder may use. Their numbers on a GPU: `python -m pytest -m gpu`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from afa_llm.models.kernels import choose_kernels


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    precision, cudnn = torch.get_float32_matmul_precision(), torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cuda.enable_cudnn_sdp(cudnn)


@pytest.mark.parametrize(
    ("dtype", "device", "precision", "cudnn"),
    [
        (torch.bfloat16, "cuda", "high", False),
        (torch.float32, "cuda", "highest", False),
        (torch.bfloat16, "cpu", "highest", True),
    ],
)
def test_what_is_chosen(dtype: torch.dtype, device: str, precision: str, cudnn: bool) -> None:
    choose_kernels(dtype, torch.device(device))
    assert torch.get_float32_matmul_precision() == precision
    assert torch.backends.cuda.cudnn_sdp_enabled() == cudnn


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("tokens", [64, 320, 704, 640])
def test_gradients_are_finite_where_rows_see_nothing(device: str, tokens: int) -> None:
    """Left padding: the first rows see no key. And scores so low that exp(-logsumexp) overflows float32."""
    choose_kernels(torch.bfloat16, torch.device(device))
    size, draw = 64, torch.Generator(device).manual_seed(0)
    query, key, value = (
        torch.randn(2, 2, tokens, size, device=device, dtype=torch.bfloat16, generator=draw) * 0.1 for _ in range(3)
    )
    query[..., 0], key[..., 0] = 1.0, -120 * math.sqrt(size)
    mask = torch.ones(2, 1, tokens, tokens, dtype=torch.bool, device=device).tril()
    mask[1, :, :, :17] = False
    leaves = [x.requires_grad_() for x in (query, key, value)]
    scaled_dot_product_attention(*leaves, attn_mask=mask)[:, :, 20:].float().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in leaves)
