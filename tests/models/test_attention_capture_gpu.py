"""The captured rows on a GPU: other kernels, the same rows. `python -m pytest -m gpu`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from needs import needs_gpu
from test_attention_capture import VIEWS, T, captured, some_loss
from tiny_models import FAMILIES, eager_rows, gradients, tiny_model

from afa_llm.records import View

pytestmark = [pytest.mark.gpu, needs_gpu]


def on_gpu(view: View) -> View:
    return replace(view, **{name: value.cuda() for name, value in vars(view).items()})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("dtype", "rows_within", "gradients_within"), [(torch.float32, 2e-6, 1e-5), (torch.bfloat16, 0.02, 0.1)]
)
def test_rows_and_gradients_equal_eager_attention(
    family: str, dtype: torch.dtype, rows_within: float, gradients_within: float
) -> None:
    """In bfloat16 the oracle is eager attention in float32 on the same rounded weights."""
    oracle, model = tiny_model(family, "eager").to(dtype).float().cuda(), tiny_model(family).to("cuda", dtype)
    if dtype is torch.bfloat16 and family == "qwen3_moe":
        pytest.skip("rounding sends tokens to other experts: no row to compare with")
    for name, view in VIEWS.items():
        view = on_gpu(view)
        rows, logits = eager_rows(oracle, view, T - 1)
        found, found_logits = captured(model, view)
        assert found.device.type == "cuda" and found.dtype == torch.float32
        assert (found - rows).abs().max() < rows_within, name
        expected = gradients(oracle, some_loss(rows.cpu(), logits.cpu()))
        got = gradients(model, some_loss(found.cpu(), found_logits.float().cpu())).float()
        assert (got - expected).norm() / expected.norm() < gradients_within, name
