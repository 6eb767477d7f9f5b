"""The masking policy against exact enumeration, a plain loop, and frequencies.

Legend: B reviews, K masks per review, W words, N hidden words.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from method_examples import attention_rows, make_batch, prompt
from scipy import stats
from torch import Tensor

from afa_llm.errors import AfaError
from afa_llm.method.attention_readout import read_focus
from afa_llm.method.mask_noise import gumbel_noise
from afa_llm.method.masking_policy import faces, hidden_words, log_prob, mask_counts, mask_scores, sample_masks
from afa_llm.records import Batch, MaskSample

FOCUS_4 = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)


def loop_log_prob(order: list[int], scores_W: Tensor, words: list[int]) -> Tensor:
    """Plackett-Luce by its definition, one draw after the other."""
    total, left = scores_W.new_zeros(()), list(words)
    for word in order:
        total = total + scores_W[word] - scores_W[left].logsumexp(0)
        left.remove(word)
    return total


def all_orders(words: int, draws: int) -> Tensor:
    return torch.tensor(list(itertools.permutations(range(words), draws)))


def test_faces() -> None:
    assert faces("both", 4).tolist() == [1, 1, -1, -1]
    assert faces("attended", 3).tolist() == [1, 1, 1]
    assert faces("unattended", 2).tolist() == [-1, -1]
    assert faces("random", 1).tolist() == [0]


@pytest.mark.parametrize(("direction", "masks"), [("both", 3), ("attended", 0), ("sideways", 2)])
def test_faces_refuses(direction: str, masks: int) -> None:
    with pytest.raises(AfaError, match="masking"):
        faces(direction, masks)


@pytest.mark.parametrize(
    ("words", "rate", "count"),
    [
        *[
            (5, 0.2, 1),
            (30, 0.1, 3),
            (10, 0.3, 3),
            (7, 0.2, 2),
            (100, 0.07, 7),
            (3, 0.01, 1),
            (1_000_000, 0.2, 200_000),
        ],
        *[(0, 0.5, 0), (1, 0.9, 0), (2, 0.9, 1), (2, 0.1, 1), (10, 0.99, 9), (11, 0.3, 4), (5, 1e-12, 1)],
    ],
)
def test_mask_counts(words: int, rate: float, count: int) -> None:
    mask = torch.arange(words + 3)[None] < words
    assert mask_counts(mask, rate).tolist() == [count]


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_mask_counts_refuses(rate: float) -> None:
    with pytest.raises(AfaError, match=r"masking\.rate"):
        mask_counts(torch.ones(1, 3).bool(), rate)


@pytest.mark.parametrize("face", [1, -1, 0])
@pytest.mark.parametrize("draws", [1, 2, 3, 4])
def test_probabilities_of_all_ordered_masks_sum_to_one(face: int, draws: int) -> None:
    orders = all_orders(4, draws)[None]
    scores = mask_scores(FOCUS_4.log()[None], torch.full((orders.shape[1],), face), 0.7)
    probability = log_prob(orders, scores, torch.ones(1, 4).bool()).exp()
    assert abs(float(probability.sum()) - 1) < 1e-12


def test_worked_probability() -> None:
    # Attended, temperature 1: first .5 of 1, then .3 of the .5 that is left. Unattended: 1/.5 and 1/.3 of their sum.
    scores = mask_scores(FOCUS_4.log()[None], torch.tensor([1, -1]), 1.0)
    probability = log_prob(torch.tensor([[[0, 1], [0, 1]]]), scores, torch.ones(1, 4).bool()).exp()
    inverse = 1 / FOCUS_4
    unattended = inverse[0] / inverse.sum() * inverse[1] / inverse[1:].sum()
    torch.testing.assert_close(probability, torch.stack([FOCUS_4.new_tensor(0.5 * 0.3 / 0.5), unattended])[None])


def test_temperature_flattens() -> None:
    # Scores log focus / 2: the first draw is proportional to the square root of the focus.
    scores = mask_scores(FOCUS_4.log()[None], torch.tensor([1]), 2.0)
    probability = log_prob(torch.tensor([[[3]]]), scores, torch.ones(1, 4).bool()).exp()
    torch.testing.assert_close(probability, (FOCUS_4.sqrt() / FOCUS_4.sqrt().sum())[3].view(1, 1))


def test_equals_the_definition_in_value_and_gradient() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = (torch.randn(3, 2, 7, generator=generator, dtype=torch.float64) * 5).requires_grad_()
    mask = torch.tensor([[True] * 7, [True] * 5 + [False] * 2, [False, True, True, False, True, False, False]])
    orders = [[[3, 0, 6, 2], [1, 2, 3, 4]], [[4, 0, 1], [2, 1, 3]], [[4], [1]]]
    padded = torch.tensor([[order + [-1] * (4 - len(order)) for order in masks] for masks in orders])
    words = [[w for w in range(7) if mask[b, w]] for b in range(3)]
    wanted = torch.stack(
        [torch.stack([loop_log_prob(orders[b][k], scores[b, k], words[b]) for k in range(2)]) for b in range(3)]
    )
    found = log_prob(padded, scores, mask)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    weights = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    (a,), (b,) = (torch.autograd.grad((value * weights).sum(), scores) for value in (found, wanted))
    torch.testing.assert_close(a, b, atol=1e-12, rtol=0)
    assert (a[~mask[:, None].expand_as(a)] == 0).all()


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64).requires_grad_()
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    order = torch.tensor([[[5, 0, 2], [1, 2, 3], [4, 3, 0]], [[0, 3, -1], [3, 1, -1], [2, 0, -1]]])
    assert torch.autograd.gradcheck(lambda s: log_prob(order, s, mask), (scores,))


def test_extreme_scores_stay_exact_and_finite() -> None:
    # After the certain first draw the rest is still a fair choice: log(1 - Σp) would be log 0 here.
    scores = torch.tensor([[[200.0, 0.0, 0.0, -200.0]]], requires_grad=True)
    value = log_prob(torch.tensor([[[0, 1]]]), scores, torch.ones(1, 4).bool())
    assert abs(value.item() - float(torch.tensor(0.5).log())) < 1e-6
    (gradient,) = torch.autograd.grad(value.sum(), scores)
    torch.testing.assert_close(gradient[0, 0], torch.tensor([0.0, 0.5, -0.5, 0.0]), atol=1e-6, rtol=0)


def test_random_face_is_uniform_and_without_gradient() -> None:
    log_focus = FOCUS_4.log()[None].requires_grad_()
    value = log_prob(torch.tensor([[[2, 0]]]), mask_scores(log_focus, torch.tensor([0]), 1.0), torch.ones(1, 4).bool())
    assert abs(value.exp().item() - 1 / 12) < 1e-12
    (gradient,) = torch.autograd.grad(value.sum(), log_focus)
    assert (gradient == 0).all()


@pytest.mark.parametrize("face", [1, -1, 0])
def test_gumbel_top_k_draws_from_these_probabilities(face: int) -> None:
    draws = 20_000
    noise = gumbel_noise(range(draws), [face], 6, seed=11, epoch=0)
    mask = torch.tensor([True, True, False, True, True, False]).expand(draws, -1)
    log_focus = torch.tensor([0.5, 0.3, 0.0, 0.15, 0.05, 0.0]).clamp_min(1e-12).log().expand(draws, -1)
    sample = sample_masks(log_focus, mask, torch.full((draws,), 2), torch.tensor([face]), 1.5, noise)
    kept = torch.tensor([0, 1, 3, 4])
    orders = kept[all_orders(4, 2)][None]
    scores = mask_scores(log_focus[:1], torch.full((12,), face), 1.5)
    expected = log_prob(orders, scores.double(), mask[:1]).exp()[0]
    codes = orders[0] @ torch.tensor([10, 1])
    found = (sample.order_BKN[:, 0] @ torch.tensor([10, 1])[:, None] == codes).sum(0)
    assert int(found.sum()) == draws
    # Fixed seed; p measured: 0.86 (attended), 0.82 (unattended), 0.34 (random).
    p = stats.chisquare(found.numpy(), (expected / expected.sum() * draws).numpy()).pvalue
    assert p > 0.01


def sample(batch: Batch, masks: int = 4, rate: float = 0.4) -> MaskSample:
    focus = read_focus(attention_rows(batch), batch.word_of_token_BT, batch.word_mask_BW)
    count = mask_counts(batch.word_mask_BW, rate)
    noise = gumbel_noise(batch.review_key_B.tolist(), range(masks), batch.word_mask_BW.shape[1], seed=5, epoch=2)
    return sample_masks(focus.log_focus_BW, batch.word_mask_BW, count, faces("both", masks), 1.0, noise)


PROMPTS = [prompt([1, 2, 1, 1]), prompt([3, 1, 1, 2, 1, 1, 1], first_id=40), prompt([2], first_id=70)]


def test_layout_changes_neither_masks_nor_log_probabilities() -> None:
    tight = sample(make_batch(PROMPTS))
    for other, rows in [
        (sample(make_batch(PROMPTS, extra_tokens=6, extra_words=5)), [0, 1, 2]),
        (sample(make_batch(PROMPTS[::-1])), [2, 1, 0]),
    ]:
        assert torch.equal(other.order_BKN[rows], tight.order_BKN)
        assert torch.equal(other.hidden_BKW[rows][..., :7], tight.hidden_BKW)
        assert not other.hidden_BKW[..., 7:].any()
        # Worst case measured: 9.5e-7, on values up to 12.
        torch.testing.assert_close(other.log_prob_BK[rows], tight.log_prob_BK, atol=4e-6, rtol=0)
    alone = sample(make_batch(PROMPTS[:1]))
    assert torch.equal(alone.order_BKN[0], tight.order_BKN[0, :, :2])
    torch.testing.assert_close(alone.log_prob_BK[0], tight.log_prob_BK[0], atol=1e-6, rtol=0)


def test_more_masks_leave_the_first_ones_alone() -> None:
    batch = make_batch(PROMPTS)
    focus = read_focus(attention_rows(batch), batch.word_of_token_BT, batch.word_mask_BW)
    count, keys = mask_counts(batch.word_mask_BW, 0.4), batch.review_key_B.tolist()
    orders = [
        sample_masks(
            focus.log_focus_BW,
            batch.word_mask_BW,
            count,
            faces("attended", masks),
            1.0,
            gumbel_noise(keys, range(masks), 7, seed=5, epoch=2),
        ).order_BKN
        for masks in (2, 5)
    ]
    assert torch.equal(orders[0], orders[1][:, :2])


def test_sizes_and_sets() -> None:
    found = sample(make_batch(PROMPTS))
    assert found.hidden_BKW.sum(-1).tolist() == [[2] * 4, [3] * 4, [0] * 4]
    assert (found.log_prob_BK[2] == 0).all()
    assert torch.equal(found.hidden_BKW, hidden_words(found.order_BKN, 7))
    assert not (found.hidden_BKW & ~make_batch(PROMPTS).word_mask_BW[:, None]).any()


def test_attended_masks_hide_the_focus_and_unattended_ones_do_not() -> None:
    focus = torch.tensor([[0.9, 0.04, 0.03, 0.02, 0.01]])
    noise = gumbel_noise([1], range(400), 5, seed=0, epoch=0)
    found = sample_masks(focus.log(), torch.ones(1, 5).bool(), torch.tensor([1]), faces("both", 400), 1.0, noise)
    hidden = found.hidden_BKW[0].float()
    # Exact: 0.9 and (1/.9) / (1/.9 + 25 + 33.3 + 50 + 100) = 0.0053.
    assert float(hidden[:200, 0].mean()) > 0.85
    assert float(hidden[200:, 0].mean()) < 0.03


def test_nothing_to_hide() -> None:
    found = sample(make_batch([prompt([1]), prompt([], first_id=20)]))
    assert found.order_BKN.shape == (2, 4, 0)
    assert not found.hidden_BKW.any()
    empty = torch.zeros(2, 0)
    none = sample_masks(empty, empty.bool(), torch.zeros(2).long(), faces("both", 2), 1.0, torch.zeros(2, 2, 0))
    assert none.log_prob_BK.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_review_without_words_beside_one_with_words_has_finite_gradients() -> None:
    log_focus = torch.full((2, 6), -1e9)
    log_focus[0] = torch.arange(6.0).log_softmax(0)
    log_focus.requires_grad_()
    mask = torch.tensor([[True] * 6, [False] * 6])
    found = sample_masks(log_focus, mask, torch.tensor([3, 0]), faces("both", 2), 1.0, torch.zeros(2, 2, 6))
    (gradient,) = torch.autograd.grad(found.log_prob_BK.sum(), log_focus)
    assert gradient.isfinite().all()
    assert (gradient[1] == 0).all()


def test_a_very_long_review_in_bounded_memory() -> None:
    reviews, masks, words, draws = 8, 4, 2000, 400
    log_focus = (torch.randn(reviews, words, generator=torch.Generator().manual_seed(0)) * 4).log_softmax(-1)
    log_focus.requires_grad_()
    word_mask = torch.ones(reviews, words).bool()
    noise = gumbel_noise(range(reviews), range(masks), words, seed=0, epoch=0)
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        count = mask_counts(word_mask, 0.2)
        found = sample_masks(log_focus, word_mask, count, faces("both", masks), 1.0, noise)
    assert found.order_BKN.shape == (reviews, masks, draws)
    # 0.8 MB measured for backward; one tensor [B, K, N, W] would be 102 MB.
    assert sum(saved) < 2_000_000
    (gradient,) = torch.autograd.grad(found.log_prob_BK.sum(), log_focus)
    assert found.log_prob_BK.isfinite().all()
    assert gradient.isfinite().all()
    exact = loop_log_prob(found.order_BKN[0, 0].tolist(), log_focus[0].detach().double(), list(range(words)))
    assert abs(found.log_prob_BK[0, 0].item() / exact.item() - 1) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_focus_is_scored_in_float32(dtype: torch.dtype) -> None:
    log_focus = FOCUS_4.log().to(dtype)[None]
    found = sample_masks(
        log_focus, torch.ones(1, 4).bool(), torch.tensor([2]), faces("both", 2), 1.0, torch.zeros(1, 2, 4)
    )
    assert found.log_prob_BK.dtype == torch.float32
    exact = loop_log_prob([0, 1], log_focus[0].float(), [0, 1, 2, 3])
    torch.testing.assert_close(found.log_prob_BK[0, 0], exact, atol=1e-6, rtol=0)


def test_wrong_noise_and_temperature_are_refused() -> None:
    arguments = (FOCUS_4.log()[None], torch.ones(1, 4).bool(), torch.tensor([2]), faces("both", 2))
    with pytest.raises(AfaError, match="noise has shape"):
        sample_masks(*arguments, 1.0, torch.zeros(1, 2, 5))
    with pytest.raises(AfaError, match=r"masking\.temperature"):
        sample_masks(*arguments, 0.0, torch.zeros(1, 2, 4))
