"""Mining of words and the rival's term, against numbers worked out by hand."""

from __future__ import annotations

import math

import torch

from afa_llm.method.self_supervision import MinedWords, mine, supervision_sum

SHOWN = torch.ones(3, 4, dtype=torch.bool)
FOCUS = torch.tensor([[0.1, 0.7, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0.2, 0.1, 0.1, 0.6]])
RIGHT = torch.tensor([True, True, False])


def test_the_most_attended_word_is_active_or_misleading_where_focus_is_sharp() -> None:
    found = mine(
        MinedWords.none(SHOWN), FOCUS, FOCUS.log(), SHOWN, RIGHT, entropy_limit=1.3
    )  # even focus: log 4 = 1.386
    assert found.active_BW.nonzero().tolist() == [[0, 1]]
    assert found.misleading_BW.nonzero().tolist() == [[2, 3]]


def test_rounds_go_on_without_the_masked_word_and_stop_before_the_last() -> None:
    found, shown = MinedWords.none(SHOWN), SHOWN.clone()
    taken = []
    for _ in range(5):
        focus = torch.where(shown, FOCUS, 0.0)
        focus = focus / focus.sum(-1, keepdim=True)
        log_focus = torch.where(shown, focus.clamp_min(1e-12).log(), -1e9)
        found = mine(found, focus, log_focus, shown, RIGHT, entropy_limit=10.0)
        shown = SHOWN & ~found.together()
        taken.append(int(found.together().sum()))
    assert taken == [3, 6, 9, 9, 9]
    assert not (found.active_BW & found.misleading_BW).any()
    assert found.active_BW[0].tolist() == [True, True, True, False]  # of equals the first, one word always left


def test_padding_is_never_taken() -> None:
    shown = torch.tensor([[True, True, False, False]])
    focus = torch.tensor([[0.4, 0.6, 0.0, 0.0]])
    found = mine(MinedWords.none(shown), focus, focus.clamp_min(1e-12).log(), shown, torch.tensor([True]), 5.0)
    assert found.together().tolist() == [[False, True, False, False]]


def test_the_term_by_hand_and_its_gradient() -> None:
    focus = FOCUS.clone().requires_grad_()
    active = torch.tensor([[True, True, False, False], [False] * 4, [False] * 4])
    misleading = torch.tensor([[False, False, True, False], [False] * 4, [False, False, False, True]])
    weight = torch.tensor([1.0, 1.0, 2.0])
    total = supervision_sum(focus, MinedWords(active, misleading), weight)
    by_hand = (0.1 - 0.5) ** 2 + (0.7 - 0.5) ** 2 + 0.1**2 + 2 * 0.6**2
    assert math.isclose(float(total.detach()), by_hand, rel_tol=1e-6)
    total.backward()
    assert focus.grad is not None
    assert torch.allclose(focus.grad[0], torch.tensor([-0.8, 0.4, 0.2, 0.0]), atol=1e-6)
    assert torch.allclose(focus.grad[2], torch.tensor([0.0, 0.0, 0.0, 2.4]), atol=1e-6)
    assert not focus.grad[1].any()


def test_filler_rows_count_nothing_even_where_they_are_no_numbers() -> None:
    focus = FOCUS.clone()
    focus[0] = math.nan
    mined = MinedWords(SHOWN.clone(), torch.zeros_like(SHOWN))
    assert torch.isfinite(supervision_sum(focus, mined, torch.tensor([0.0, 1.0, 1.0])))
