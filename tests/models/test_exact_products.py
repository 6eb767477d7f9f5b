"""Half-precision operands, float32 results: against float64, with gradients, in pieces, and inside a model."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import make_view, tiny_model
from torch import nn

from afa_llm.models import exact_products
from afa_llm.models.attention_capture import attention_row
from afa_llm.models.decoder import Decoder
from afa_llm.models.exact_products import exact_product, keep_logits_exact
from afa_llm.records import AnswerWords


def operands(dtype: torch.dtype, *batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    left, right = torch.randn(*batch, 3, 16, generator=draw), torch.randn(*batch, 7, 16, generator=draw)
    return (20 * left).to(dtype).requires_grad_(), right.to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch", [(), (2, 5)])
@pytest.mark.parametrize("chunk", [exact_products.CHUNK, 40])
def test_the_product_of_half_precision_numbers_is_not_rounded(
    dtype: torch.dtype, batch: tuple[int, ...], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_products, "CHUNK", chunk)
    left, right = operands(dtype, *batch)
    product = exact_product(left, right)
    truth = left.double() @ right.double().mT
    assert product.dtype == torch.float32
    assert (product - truth).abs().max() < 1e-4  # values up to 200
    assert ((left @ right.mT).double() - truth).abs().max() > 0.02  # what a plain product does
    weight = torch.randn(product.shape, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad((product * weight).sum(), (left, right))
    expected = torch.autograd.grad((truth * weight).sum(), (left, right))
    for found, wanted in zip(grads, expected, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found, wanted, rtol=0.01, atol=0.01)


def test_only_the_half_precision_operands_are_kept_for_the_gradient() -> None:
    left, right = operands(torch.bfloat16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        exact_product(left, right)
    assert {x.data_ptr() for x in kept} == {left.data_ptr(), right.data_ptr()}


def test_wider_operands_take_the_plain_product() -> None:
    left, right = operands(torch.float64)
    assert torch.equal(exact_product(left, right), left @ right.mT)


def layer_and_hidden(bias: bool) -> tuple[nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(16, 50, bias=bias).bfloat16()
    layer.requires_grad_(requires_grad=False)
    return layer, (30 * torch.randn(4, 2, 16)).bfloat16().requires_grad_()


@pytest.mark.parametrize("bias", [False, True])
def test_an_output_layer_gives_float32_logits(bias: bool) -> None:
    layer, hidden = layer_and_hidden(bias)
    truth = copy.deepcopy(layer).double()(hidden.double())
    rounded = layer(hidden)
    keep_logits_exact(layer)
    logits = layer(hidden)
    assert logits.dtype == torch.float32
    assert logits.shape == (4, 2, 50)
    assert (logits - truth).abs().max() < 1e-4
    assert (rounded - truth).abs().max() > 0.02
    (grad,) = torch.autograd.grad(logits.square().sum(), hidden)
    (expected,) = torch.autograd.grad(truth.square().sum(), hidden)
    torch.testing.assert_close(grad, expected, rtol=0.01, atol=0.5)


def test_layers_that_are_trained_or_wide_or_no_linear_layer_stay_as_they_are() -> None:
    layer, hidden = layer_and_hidden(bias=False)
    keep_logits_exact(layer)
    layer.weight.requires_grad_()
    assert layer(hidden).dtype == torch.bfloat16
    wide = nn.Linear(4, 4)
    keep_logits_exact(wide)
    assert "forward" not in vars(wide)
    keep_logits_exact(nn.Identity())  # no weight at all


def test_answers_of_a_bfloat16_decoder_are_those_of_its_hidden_state() -> None:
    model = tiny_model("llama").bfloat16().requires_grad_(requires_grad=False)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(40)
    view, answers = make_view([6] * 60), AnswerWords(("bad", "good"), ((5,), (6,)))
    plain_BV = model(view.input_ids_BT, attention_mask=view.attention_mask_BT).logits[:, -1].float()
    with torch.no_grad():
        found = Decoder(model, (0,), 0).read(view, answers)
    weight_VD = model.get_output_embeddings().weight.double()
    expected_B = found.hidden_BD.double() @ (weight_VD[6] - weight_VD[5])
    odds_B = found.label_logprob_BC[:, 1] - found.label_logprob_BC[:, 0]
    assert (odds_B - expected_B).abs().max() < 1e-4
    assert (plain_BV[:, 6] - plain_BV[:, 5] - expected_B).abs().max() > 0.1


def test_a_row_of_large_scores_is_not_rounded() -> None:
    """Keys with a large part in common, as a bias gives them: scores of about 1,400, whose differences decide."""
    draw = torch.Generator().manual_seed(0)
    query = (12 + torch.randn(2, 4, 9, 16, generator=draw)).bfloat16()
    key = (7 + torch.randn(2, 2, 9, 16, generator=draw)).bfloat16()
    row = attention_row(query, key, None, 8, scaling=0.25)
    scores = query[:, :, 8:].double() @ key.double().repeat_interleave(2, dim=1).mT * 0.25
    assert scores.max() > 300
    assert (row - scores[:, :, 0].softmax(-1)).abs().max() < 1e-3
