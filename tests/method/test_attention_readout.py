"""The focus: worked numbers, padding, low precision, degenerate rows.

Legend: B reviews, T tokens, W words, L layers, H heads.
"""

from __future__ import annotations

import pytest
import torch
from method_examples import attention_rows, make_batch, prompt

from afa_llm.errors import AfaError
from afa_llm.method.attention_readout import FOCUS_FLOOR, Focus, read_focus, sink_mass
from afa_llm.records import Batch


def focus_of(batch: Batch) -> Focus:
    return read_focus(attention_rows(batch), batch.word_of_token_BT, batch.word_mask_BW)


def test_worked_numbers() -> None:
    # Two layers of one head. Mean row: sink .5, word 0 on two tokens .1 + .1, word 1 .2, template .1.
    rows = torch.tensor([[0.6, 0.0, 0.1, 0.2, 0.1], [0.4, 0.2, 0.1, 0.2, 0.1]])[:, None, None]
    words = torch.tensor([[-1, 0, 0, 1, -1]])
    focus = read_focus(rows, words, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(focus.focus_BW, torch.tensor([[0.5, 0.5, 0.0]]))
    torch.testing.assert_close(focus.word_mass_B, torch.tensor([0.4]))
    torch.testing.assert_close(focus.log_focus_BW[0, :2], torch.tensor([0.5, 0.5]).log())
    assert focus.log_focus_BW[0, 2] == -1e9
    torch.testing.assert_close(sink_mass(rows, torch.ones(1, 5)), torch.tensor([0.5]))


def test_heads_count_alike_within_and_over_layers() -> None:
    rows = torch.zeros(2, 1, 2, 3)
    rows[0, 0, 0, 0] = rows[0, 0, 1, 1] = rows[1, 0, 0, 1] = rows[1, 0, 1, 1] = 1.0
    focus = read_focus(rows, torch.tensor([[0, 1, -1]]), torch.tensor([[True, True]]))
    torch.testing.assert_close(focus.focus_BW, torch.tensor([[0.25, 0.75]]))


def test_words_outside_the_word_mask_have_no_focus() -> None:
    focus = read_focus(
        torch.full((1, 1, 1, 4), 0.25), torch.tensor([[0, 1, 2, -1]]), torch.tensor([[True, False, True]])
    )
    torch.testing.assert_close(focus.focus_BW, torch.tensor([[0.5, 0.0, 0.5]]))


@pytest.mark.parametrize("extra", [(3, 0), (0, 4), (5, 2)])
def test_padding_changes_nothing(extra: tuple[int, int]) -> None:
    prompts = [prompt([1, 2, 1]), prompt([3, 1, 1, 2, 1], first_id=40)]
    tight, wide = make_batch(prompts), make_batch(prompts, extra_tokens=extra[0], extra_words=extra[1])
    a, b = focus_of(tight), focus_of(wide)
    # Worst case measured: 0 (the tolerance leaves room for another order of summation).
    torch.testing.assert_close(b.focus_BW[:, :5], a.focus_BW, atol=2e-7, rtol=0)
    torch.testing.assert_close(b.log_focus_BW[:, :5], a.log_focus_BW, atol=1e-6, rtol=0)
    assert (b.focus_BW[:, 5:] == 0).all()
    first = sink_mass(attention_rows(tight), tight.attention_mask_BT)
    torch.testing.assert_close(sink_mass(attention_rows(wide), wide.attention_mask_BT), first, atol=2e-7, rtol=0)


def test_batch_mates_and_order_change_nothing() -> None:
    prompts = [prompt([1, 2, 1]), prompt([3, 1, 1, 2, 1], first_id=40), prompt([2, 2], first_id=70)]
    together = focus_of(make_batch(prompts)).focus_BW
    reversed_order = focus_of(make_batch(prompts[::-1])).focus_BW
    torch.testing.assert_close(reversed_order.flip(0), together, atol=2e-7, rtol=0)
    alone = focus_of(make_batch(prompts[2:])).focus_BW
    torch.testing.assert_close(alone[0], together[2, :2], atol=2e-7, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_rows_are_summed_in_float32(dtype: torch.dtype) -> None:
    # 4096 words of 1/8192 each: a half-precision sum stalls long before 0.5.
    words = 4096
    rows = torch.full((3, 1, 5, 2 * words), 1 / (2 * words), dtype=dtype).requires_grad_()
    word_of_token = torch.arange(2 * words)[None].clone()
    word_of_token[:, words:] = -1
    focus = read_focus(rows, word_of_token, torch.ones(1, words, dtype=torch.bool))
    assert focus.focus_BW.dtype == torch.float32
    torch.testing.assert_close(focus.word_mass_B, torch.tensor([0.5]), atol=1e-6, rtol=0)
    torch.testing.assert_close(focus.focus_BW.sum(), torch.tensor(1.0), atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(focus.log_focus_BW[0, 0], rows)
    assert gradient.isfinite().all()


def test_nothing_eligible_gives_zeros_and_finite_gradients() -> None:
    rows = torch.full((1, 3, 1, 4), 0.25)
    rows[0, 2, 0] = torch.tensor([1.0, 0.0, 0.0, 0.0])  # every word underflowed
    rows.requires_grad_()
    words = torch.tensor([[-1, 0, 1, -1]] * 3)
    mask = torch.tensor([[True, True], [False, False], [True, True]])
    focus = read_focus(rows, words, mask)
    torch.testing.assert_close(focus.focus_BW, torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(focus.log_focus_BW[2], torch.full((2,), FOCUS_FLOOR).log())
    (gradient,) = torch.autograd.grad(
        (focus.log_focus_BW * focus.focus_BW).sum() + focus.log_focus_BW[:, 0].sum(), rows
    )
    assert gradient.isfinite().all()
    assert gradient[0, 0].abs().sum() > 0


def test_tiny_masses_have_finite_gradients() -> None:
    logits = torch.tensor([60.0, 20.0, 3.0, -40.0], requires_grad=True)  # the sink, then words of mass e-18 .. e-44
    focus = read_focus(logits.softmax(-1)[None, None, None], torch.tensor([[-1, 0, 1, 2]]), torch.ones(1, 3).bool())
    assert focus.log_focus_BW.isfinite().all()
    (gradient,) = torch.autograd.grad(focus.log_focus_BW[0, 1], logits)
    # log focus of word 1 = its logit minus the logsumexp of the words'.
    torch.testing.assert_close(gradient, torch.tensor([0.0, -1.0, 1.0, 0.0]), atol=1e-5, rtol=0)


def test_gradient_in_float64() -> None:
    batch = make_batch([prompt([1, 2, 1]), prompt([2, 2], first_id=40)])
    shape = (2, 2, 2, batch.input_ids_BT.shape[1])
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()

    def log_focus(x: torch.Tensor) -> torch.Tensor:
        return read_focus(x.softmax(-1), batch.word_of_token_BT, batch.word_mask_BW).log_focus_BW[batch.word_mask_BW]

    assert torch.autograd.gradcheck(log_focus, (logits,))


def test_nan_is_not_hidden() -> None:
    rows = torch.tensor([0.5, torch.nan, 0.5])[None, None, None]
    focus = read_focus(rows, torch.tensor([[0, 1, -1]]), torch.ones(1, 2).bool())
    assert focus.focus_BW.isnan().any()


def test_a_row_without_tokens_has_no_sink() -> None:
    rows = torch.tensor([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])[None, :, None]
    mask = torch.tensor([[0, 0, 0], [0, 1, 1]])
    torch.testing.assert_close(sink_mass(rows, mask), torch.tensor([0.0, 0.2]))


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(AfaError, match=r"at least one layer and head; set attention\.layers"):
        read_focus(torch.zeros(0, 1, 2, 3), torch.zeros(1, 3).long(), torch.ones(1, 2).bool())
    with pytest.raises(AfaError, match="don't belong to one view"):
        read_focus(torch.zeros(1, 1, 2, 4), torch.zeros(1, 3).long(), torch.ones(1, 2).bool())
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        read_focus(torch.zeros(1, 1, 2, 3), torch.tensor([[0, 1, 2]]), torch.ones(1, 2).bool())
