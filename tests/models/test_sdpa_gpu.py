"""Gradients on a GPU at the length and mask for which cuDNN's kernel gives NaN. `python -m pytest -m gpu`."""

from __future__ import annotations

import math

import pytest
import torch
from needs import needs_gpu
from torch.nn.functional import scaled_dot_product_attention

from afa_llm.models import attention_capture

pytestmark = [pytest.mark.gpu, needs_gpu]


@pytest.mark.parametrize("tokens", [64, 320, 704, 640])
def test_gradients_are_finite_where_rows_see_nothing(tokens: int) -> None:
    """Left padding: the first rows see no key. And scores so low that exp(-logsumexp) overflows float32."""
    attention_capture.register()
    size, draw = 64, torch.Generator("cuda").manual_seed(0)
    query, key, value = (
        torch.randn(2, 4, tokens, size, device="cuda", dtype=torch.bfloat16, generator=draw) * 0.1 for _ in range(3)
    )
    query[..., 0], key[..., 0] = 1.0, -120 * math.sqrt(size)
    mask = torch.ones(2, 1, tokens, tokens, dtype=torch.bool, device="cuda").tril()
    mask[1, :, :, :17] = False
    leaves = [x.requires_grad_() for x in (query, key, value)]
    scaled_dot_product_attention(*leaves, attn_mask=mask)[:, :, 20:].float().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in leaves)
