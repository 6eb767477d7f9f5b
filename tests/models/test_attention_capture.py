"""The captured readout row against plain eager attention, and what capturing must not do.

Legend: B rows, T tokens, H query heads, L layers.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import DEPTH, FAMILIES, eager_rows, gradients, make_view, tiny_model
from torch import nn
from transformers import AttentionInterface

from afa_llm.errors import AfaError
from afa_llm.models import attention_capture
from afa_llm.models.attention_capture import CAPTURE, DeepEnough, RowRequest
from afa_llm.models.decoder import Decoder
from afa_llm.records import AnswerWords, View

# Worst cases over all families and views of this file, float32: rows 4.5e-7, logits 2.3e-6, gradients 1.2e-6 of the
# norm; with and without checkpointing 0.
ROWS, LOGITS, GRADIENTS, CHECKPOINTING = 1e-6, 5e-6, 4e-6, 1e-6
T = 19  # beyond the sliding windows of 7
VIEWS = {
    "no padding": make_view([T, T, T]),
    "left padding": make_view([T, 11, 4]),
    "blocked keys": make_view([T, 11, 8], blocked=(2, 3, 6)),
    "alone, blocked keys": make_view([T], blocked=(2, 3)),
}


def captured(
    model: nn.Module, view: View, position: int = T - 1, layers: tuple[int, ...] = tuple(range(DEPTH))
) -> tuple[torch.Tensor, torch.Tensor]:
    request = RowRequest(frozenset(layers), position)
    logits = ask(model, view, request)
    return torch.stack([request.found[layer] for layer in layers]), logits


def ask(model: nn.Module, view: View, request: RowRequest | None) -> torch.Tensor:
    output = model(
        input_ids=view.input_ids_BT,
        attention_mask=view.attention_mask_BT,
        position_ids=view.position_BT,
        use_cache=False,
        attention_rows=request,
    )
    if request is not None:
        request.closed = True
    return output.logits


def some_loss(rows_LBHT: torch.Tensor, logits_BTV: torch.Tensor) -> torch.Tensor:
    """Depends on every row and on the answer, as the objective does."""
    weights = torch.randn(rows_LBHT.shape, generator=torch.Generator().manual_seed(1))
    return (rows_LBHT * weights).sum() + logits_BTV[:, -1].log_softmax(-1)[:, 5].sum()


def checkpointed(model: nn.Module) -> nn.Module:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_logits_and_gradients_equal_eager_attention(family: str) -> None:
    oracle, model = tiny_model(family, "eager"), tiny_model(family)
    assert oracle.state_dict().keys() == model.state_dict().keys()
    for name, view in VIEWS.items():
        for position in (T - 1, T - 4):
            rows, logits = eager_rows(oracle, view, position)
            found, found_logits = captured(model, view, position)
            expected, got = gradients(oracle, some_loss(rows, logits)), gradients(model, some_loss(found, found_logits))
            assert found.shape == rows.shape and found.dtype == torch.float32
            assert (found - rows).abs().max() < ROWS, name
            assert (found_logits - logits)[:, -1].abs().max() < LOGITS, name
            assert (got - expected).norm() / expected.norm() < GRADIENTS, name


GPU = pytest.mark.gpu
ROUNDED = [family for family in FAMILIES if family != "qwen3_moe"]  # rounding sends its tokens to other experts
EXACT = [pytest.param(family, torch.float32, "cuda", 2e-6, 1e-5, marks=GPU) for family in FAMILIES]
BFLOAT16 = [(family, torch.bfloat16, "cpu", 0.02, 0.1) for family in ROUNDED]
BFLOAT16_GPU = [pytest.param(family, torch.bfloat16, "cuda", 0.02, 0.1, marks=GPU) for family in ROUNDED]


@pytest.mark.parametrize(
    ("family", "dtype", "device", "rows_within", "gradients_within"), [*EXACT, *BFLOAT16, *BFLOAT16_GPU]
)
def test_rows_and_gradients_in_other_types_and_places(
    family: str, dtype: torch.dtype, device: str, rows_within: float, gradients_within: float
) -> None:
    """The oracle is eager attention in float32 on the same (rounded) weights, on the same device."""
    oracle, model = tiny_model(family, "eager").to(dtype).float().to(device), tiny_model(family).to(device, dtype)
    for name, view in VIEWS.items():
        view = View(**{field: value.to(device) for field, value in vars(view).items()})
        rows, logits = eager_rows(oracle, view, T - 1)
        found, found_logits = captured(model, view)
        assert found.device.type == device and found.dtype == torch.float32
        assert (found - rows).abs().max() < rows_within, name
        expected = gradients(oracle, some_loss(rows.cpu(), logits.cpu()))
        got = gradients(model, some_loss(found.cpu(), found_logits.float().cpu())).float()
        assert (got - expected).norm() / expected.norm() < gradients_within, name


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_no_gradient(family: str) -> None:
    """Recomputation repeats the same arithmetic; reentrant checkpointing would lose 2.7 %."""
    for view in (VIEWS["left padding"], VIEWS["blocked keys"]):
        plain, recomputed = tiny_model(family), checkpointed(tiny_model(family))
        expected = gradients(plain, some_loss(*captured(plain, view)))
        got = gradients(recomputed, some_loss(*captured(recomputed, view)))
        assert (got - expected).norm() / expected.norm() < CHECKPOINTING


def test_gradient_checkpointing_replays_rows_of_one_layer() -> None:
    """Rows alone, of a middle layer: nothing but the capture carries this gradient."""
    plain, recomputed = tiny_model("llama"), checkpointed(tiny_model("llama"))
    got, expected = (
        gradients(model, (captured(model, VIEWS["left padding"], layers=(1,))[0] ** 2).sum())
        for model in (recomputed, plain)
    )
    assert expected.norm() > 0.01
    assert (got - expected).norm() / expected.norm() < CHECKPOINTING


def test_rows_are_distributions_over_visible_keys() -> None:
    view = VIEWS["blocked keys"]
    for family in ("llama", "mistral", "gemma2"):
        rows, _ = captured(tiny_model(family), view)
        assert torch.allclose(rows.sum(-1), torch.ones(()), atol=1e-6)
        assert (rows[:, view.attention_mask_BT[:, None].expand(-1, rows.shape[2], -1) == 0] == 0).all()


@pytest.mark.parametrize(("mask", "window"), [(None, None), ("bool", 5), ("additive", 5)])
def test_attention_row_by_hand(mask: str | None, window: int | None) -> None:
    """One head at a time, written out: softmax of scaled, capped dot products over keys in reach."""
    draw = torch.Generator().manual_seed(0)
    B, H, G, D, position = 2, 6, 3, 8, 9
    query, key = (torch.randn(B, n, 12, D, generator=draw) for n in (H, G))
    reach = torch.arange(12) <= position
    if window:
        reach &= torch.arange(12) > position - window
    allowed = reach.expand(B, 1, 12, 12)
    given = {None: None, "bool": allowed, "additive": torch.where(allowed, 0.0, torch.finfo(torch.float32).min)}[mask]
    row = attention_capture.attention_row(query, key, given, position, scaling=0.3, softcap=2.0)
    for b in range(B):
        for h in range(H):
            score = torch.tanh(key[b, h // 2] @ query[b, h, position] * 0.3 / 2.0) * 2.0
            expected = torch.zeros(12)
            expected[reach] = score[reach].softmax(-1)
            assert (row[b, h] - expected).abs().max() < 1e-6


def test_scaling_defaults_to_the_root_of_the_head_size() -> None:
    query, key = torch.randn(1, 2, 5, 16), torch.randn(1, 2, 5, 16)
    rows = [attention_capture.attention_row(query, key, None, 4, scaling) for scaling in (None, 0.25)]
    assert torch.equal(*rows)


def saved_shapes(model: nn.Module, view: View, request: RowRequest | None) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ask(model, view, request)
    return shapes


@pytest.mark.parametrize("lengths", [[101, 101], [101, 60]])
def test_capturing_keeps_no_square_matrix(lengths: list[int]) -> None:
    """T is a prime that no other size equals. What SDPA itself keeps (its mask) is the same with and without rows."""
    model, view = tiny_model("llama"), make_view(lengths)
    request = RowRequest(frozenset(range(DEPTH)), 100)
    without, with_rows = saved_shapes(model, view, None), saved_shapes(model, view, request)

    def squares(shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        return sorted(shape for shape in shapes if shape[-2:] == (101, 101))

    assert squares(with_rows) == squares(without)
    assert all(shape[1] == 1 for shape in squares(with_rows))  # masks only, nothing per head
    assert len(with_rows) > len(without)  # the hooks do see the capture
    assert all(found.shape == (2, 4, 101) for found in request.found.values())


def test_a_closed_request_stores_nothing() -> None:
    model, view = tiny_model("llama"), VIEWS["left padding"]
    request = RowRequest(frozenset({0, 2}), T - 1, closed=True)
    ask(model, view, request)
    assert request.found == {}


def test_recomputation_leaves_what_was_found() -> None:
    model, view = checkpointed(tiny_model("llama")), VIEWS["left padding"]
    request = RowRequest(frozenset({0, 2}), T - 1)
    loss = ask(model, view, request).sum() + sum(row.pow(2).sum() for row in request.found.values())
    before = dict(request.found)
    loss.backward()
    assert request.found.keys() == {0, 2}
    assert all(request.found[layer] is before[layer] for layer in before)


def test_stop_after_ends_the_forward_only_without_gradient() -> None:
    model, view = tiny_model("llama"), VIEWS["left padding"]
    request = RowRequest(frozenset({1}), T - 1, stop_after=1)
    with pytest.raises(DeepEnough), torch.no_grad():
        ask(model, view, request)
    with_gradient = RowRequest(frozenset({1}), T - 1, stop_after=1)
    ask(model, view, with_gradient)
    assert (request.found[1] - with_gradient.found[1]).abs().max() < ROWS


def test_no_request_changes_nothing() -> None:
    view = VIEWS["left padding"]
    plain, capturing = tiny_model("llama", "sdpa"), tiny_model("llama")
    assert torch.equal(
        ask(capturing, view, None), plain(view.input_ids_BT, view.attention_mask_BT, view.position_BT).logits
    )
    assert torch.equal(captured(capturing, view)[1], ask(capturing, view, None))


ELSEWHERE: dict[str, dict[str, Any]] = {
    "bloom": {"n_head": 4, "n_layer": 3},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 3},
    "mamba": {},
    "xglm": {"d_model": 64, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64},
}


@pytest.mark.parametrize("family", ELSEWHERE)
def test_a_family_beside_the_interface_is_refused_by_name(family: str) -> None:
    decoder = Decoder(tiny_model(family, **ELSEWHERE[family]), (0, 1), 0)
    answers = AnswerWords(("no", "yes"), ((5,), (6,)))
    for pass_ in (lambda view: decoder.read(view, answers), decoder.read_rows):
        with pytest.raises(AfaError, match=rf"model.path: {family} gives no attention rows in layers \[0, 1\]"):
            pass_(VIEWS["left padding"])


@pytest.mark.parametrize("layers", [(0, 1), (2,)])
def test_attention_sinks_are_refused(layers: tuple[int, ...]) -> None:
    """SDPA leaves sinks out without a word, so that layers which nobody captures would be wrong too."""
    changes = {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 7}
    model = tiny_model("gpt_oss", **changes)
    request = RowRequest(frozenset(layers), T - 1)
    with pytest.raises(AfaError, match=r"GptOssAttention adds s_aux to its attention"):
        ask(model, VIEWS["left padding"], request)
    with pytest.raises(AfaError, match=r"s_aux"):
        ask(model, VIEWS["left padding"], RowRequest(frozenset(), T - 1))


@pytest.mark.parametrize("implementation", [CAPTURE, attention_capture.CAPTURE_EAGER])
def test_position_bias_is_refused(implementation: str) -> None:
    attention_capture.register()
    states = torch.randn(1, 2, 5, 8)
    module = SimpleNamespace(layer_idx=0)
    with pytest.raises(AfaError, match="adds position_bias to its attention, which the focus cannot read"):
        AttentionInterface()[implementation](
            module, states, states, states, None,
            attention_rows=RowRequest(frozenset({0}), 4), position_bias=torch.zeros(1, 2, 5, 5),
        )  # fmt: skip


def test_soft_capped_scores_under_sdpa_name_the_setting() -> None:
    model = tiny_model("gemma2", CAPTURE)
    with pytest.raises(AfaError, match=r"set model\.attention=eager"):
        ask(model, VIEWS["left padding"], RowRequest(frozenset({0}), T - 1))


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gemma2", "gpt2"])
def test_value_norms_are_those_of_the_value_projection(family: str) -> None:
    """The oracle reads the projection's own output; query heads share the value of their key-value head."""
    model, view = tiny_model(family), VIEWS["left padding"]
    projected: list[torch.Tensor] = []
    places = [m for name, m in model.named_modules() if name.endswith(("v_proj", "c_attn"))]
    hooks = [m.register_forward_hook(lambda _, __, output: projected.append(output.detach())) for m in places]
    request = RowRequest(frozenset(range(DEPTH)), T - 1, value_norms=True)
    with torch.no_grad():
        ask(model, view, request)
    for hook in hooks:
        hook.remove()
    assert len(projected) == DEPTH
    for layer, output in enumerate(projected):
        values_BTD = output[..., -output.shape[-1] // 3 :] if family == "gpt2" else output
        groups, heads = (4, 4) if family == "gpt2" else (2, 4)
        norm_BTG = values_BTD.unflatten(-1, (groups, -1)).norm(dim=-1)
        for head in range(heads):
            expected = norm_BTG[..., head * groups // heads]
            assert (request.norms[layer][:, head] - expected).abs().max() < 1e-5


def test_value_norms_are_kept_only_where_they_are_asked_for() -> None:
    request = RowRequest(frozenset([0, 2]), T - 1)
    ask(tiny_model("llama"), VIEWS["left padding"], request)
    assert set(request.found) == {0, 2} and request.norms == {}
