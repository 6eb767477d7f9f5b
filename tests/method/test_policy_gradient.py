"""The policy gradient against exact enumeration; the other terms against worked numbers and torch.

Legend: B reviews, K masks per review, W words, C labels, V vocabulary.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from afa_llm.errors import AfaError
from afa_llm.method.mask_noise import gumbel_noise
from afa_llm.method.masking_policy import log_prob, mask_scores, sample_masks
from afa_llm.method.policy_gradient import (
    entropy_sum,
    focus_entropy,
    kept_groups,
    kl_sum,
    leave_one_out,
    mass_kl_sum,
    policy_gradient_sum,
    squares_sum,
    task_loss_sum,
)

ORDERS = torch.tensor(list(itertools.permutations(range(4), 2)))  # all 12 ordered masks of 2 out of 4 words
REWARD_12 = torch.randn(12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
ONE = torch.ones(1, dtype=torch.float64)


def log_probs(logits_W: Tensor, face: int, orders: Tensor = ORDERS) -> Tensor:
    scores = mask_scores(logits_W.log_softmax(0)[None], torch.full((len(orders),), face), 0.8)
    return log_prob(orders[None], scores, torch.ones(1, 4).bool())[0]


def exact_gradient(logits_W: Tensor, face: int) -> Tensor:
    """∇ Σ_m π(m) R(m), through the probabilities themselves."""
    return torch.autograd.grad((log_probs(logits_W, face).exp() * REWARD_12).sum(), logits_W)[0]


def some_logits() -> Tensor:
    return torch.tensor([0.3, -0.7, 1.1, 0.0], dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("face", [1, -1])
def test_the_expected_score_function_estimate_is_the_gradient_of_the_expected_reward(face: int) -> None:
    logits = some_logits()
    value = log_probs(logits, face)
    expected = value.new_zeros(4)
    for m, probability in enumerate(value.detach().exp()):
        loss = policy_gradient_sum(value[m].view(1, 1), REWARD_12[m].view(1, 1), torch.ones(1, 1).bool(), ONE)
        expected -= probability * torch.autograd.grad(loss, logits, retain_graph=True)[0]
    # Both are sums of the same few float64 products.
    torch.testing.assert_close(expected, exact_gradient(logits, face), atol=1e-12, rtol=0)
    assert float(expected.abs().max()) > 0.05


@pytest.mark.parametrize("face", [1, -1])
def test_leave_one_out_is_unbiased_over_all_pairs_of_masks(face: int) -> None:
    logits, faces = some_logits(), torch.tensor([face, face])
    value = log_probs(logits, face)
    first, second = torch.cartesian_prod(torch.arange(12), torch.arange(12)).T
    pairs, rewards = (
        torch.stack([value[first], value[second]], 1),
        torch.stack([REWARD_12[first], REWARD_12[second]], 1),
    )
    kept = torch.ones_like(pairs, dtype=torch.bool)
    # One "review" per pair of masks, weighted with its probability; divided by K = 2.
    loss = policy_gradient_sum(pairs, leave_one_out(rewards, faces), kept, pairs.detach().sum(1).exp()) / 2
    (found,) = torch.autograd.grad(loss, logits)
    # Both are sums of the same few float64 products.
    torch.testing.assert_close(-found, exact_gradient(logits, face), atol=1e-12, rtol=0)


def test_leave_one_out_worked_numbers() -> None:
    reward = torch.tensor([[1.0, 2.0, 6.0, 10.0, 14.0]])
    # Face +1: 1 - 4, 2 - 3.5, 6 - 1.5. Face -1: 10 - 14, 14 - 10.
    expected = [[-3.0, -1.5, 4.5, -4.0, 4.0]]
    assert leave_one_out(reward, torch.tensor([1, 1, 1, -1, -1])).tolist() == expected


def test_a_baseline_stays_within_its_face_and_review() -> None:
    faces = torch.tensor([1, -1, 1, -1])
    reward = torch.tensor([[1.0, 5.0, 2.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    found = leave_one_out(reward, faces)
    assert found[0].tolist() == [-1.0, -4.0, 1.0, 4.0]
    assert (found[1] == 0).all()
    changed = reward.clone()
    changed[0, 1] = 1e9
    assert torch.equal(leave_one_out(changed, faces)[:, [0, 2]], found[:, [0, 2]])


def test_a_single_mask_of_a_face_has_no_baseline() -> None:
    with pytest.raises(AfaError, match="two masks of each face"):
        leave_one_out(torch.zeros(1, 3), torch.tensor([1, 1, -1]))


def test_kept_groups() -> None:
    faces = torch.tensor([1, 1, -1, -1])
    reward = torch.tensor(
        [[0.0, 2.0, 1.0, 1.0], [3.0, 3.0, 0.0, 0.2], [0.0, 2.0, 0.0, 2.0], [0.0, torch.nan, 0.0, 0.0]]
    )
    kept = kept_groups(reward, faces, 0.1 + 1e-6, torch.tensor([1.0, 1.0, 0.0, 1.0]))
    # Standard deviations: 1 and 0; 0 and .1 (under the floor); a filler; NaN, which must show.
    assert kept.tolist() == [[True, True, False, False], [False] * 4, [False] * 4, [True, True, False, False]]
    assert kept_groups(reward, faces, 0.1 - 1e-6, torch.ones(4))[1].tolist() == [False, False, True, True]


def test_equal_rewards_are_skipped_at_any_magnitude() -> None:
    reward = torch.full((1, 3), 0.1) * 1e6
    assert not kept_groups(reward, torch.ones(3), 0.0, torch.ones(1)).any()
    assert (leave_one_out(reward, torch.ones(3)) == 0).all()


def test_policy_gradient_sum_worked_number() -> None:
    log_probability = torch.tensor([[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]], requires_grad=True)
    advantage = torch.tensor([[1.0, -1.0], [2.0, 3.0], [7.0, 7.0]])
    kept = torch.tensor([[True, True], [True, False], [True, True]])
    loss = policy_gradient_sum(log_probability, advantage, kept, torch.tensor([1.0, 1.0, 0.0]))
    assert loss.item() == -(-1 + 2 - 6)
    (gradient,) = torch.autograd.grad(loss, log_probability)
    assert gradient.tolist() == [[-1.0, 1.0], [-2.0, 0.0], [0.0, 0.0]]


def test_squares_sum_counts_what_teaches_alone() -> None:
    advantage = torch.tensor([[1.0, -2.0], [3.0, float("nan")], [5.0, 7.0]])
    kept = torch.tensor([[True, True], [True, False], [True, True]])
    assert squares_sum(advantage, kept, torch.tensor([1.0, 1.0, 0.0])) == 1 + 4 + 9  # the last review is a filler


def test_what_is_left_out_cannot_spoil_the_gradient_and_what_is_kept_must_show() -> None:
    log_probability = torch.tensor([[-1.0, torch.nan], [-3.0, -4.0]], requires_grad=True)
    advantage = torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]])
    kept = torch.tensor([[True, False], [True, True]])
    loss = policy_gradient_sum(log_probability, advantage, kept, torch.tensor([1.0, 0.0]))
    (gradient,) = torch.autograd.grad(loss, log_probability)
    assert (loss.item(), gradient.tolist()) == (1.0, [[-1.0, 0.0], [0.0, 0.0]])
    assert policy_gradient_sum(log_probability, advantage, kept, torch.ones(2)).isnan()


def test_micro_batches_add_up() -> None:
    generator = torch.Generator().manual_seed(5)
    value, reward = torch.randn(6, 4, generator=generator).double(), torch.randn(6, 4, generator=generator).double()
    faces, weight = torch.tensor([1, 1, -1, -1]), torch.tensor([1.0, 1, 1, 0, 1, 1])

    def numerator(rows: slice) -> Tensor:
        kept = kept_groups(reward[rows], faces, 1e-4, weight[rows])
        return policy_gradient_sum(value[rows], leave_one_out(reward[rows], faces), kept, weight[rows])

    torch.testing.assert_close(numerator(slice(0, 2)) + numerator(slice(2, 6)), numerator(slice(0, 6)))


def test_leave_one_out_cuts_the_variance() -> None:
    """4 masks of 1 out of 8 words; the reward is -2 plus 0.5 where word 0 is hidden. Fixed seed."""
    rounds, faces = 4000, torch.ones(4, dtype=torch.long)
    logits = torch.zeros(rounds, 8, dtype=torch.float64, requires_grad=True)
    noise = gumbel_noise(range(rounds), range(4), 8, seed=1, epoch=0)
    mask = torch.ones(rounds, 8).bool()
    sample = sample_masks(logits.log_softmax(-1), mask, torch.ones(rounds).long(), faces, 1.0, noise)
    reward = -2 + 0.5 * sample.hidden_BKW[..., 0].double()
    kept = torch.ones_like(reward, dtype=torch.bool)
    gradients = [
        torch.autograd.grad(
            policy_gradient_sum(sample.log_prob_BK, advantage, kept, torch.ones(rounds)), logits, retain_graph=True
        )[0][:, 0]
        / -4
        for advantage in (reward, leave_one_out(reward, faces))
    ]
    plain, baseline = gradients
    exact = 0.5 * (1 / 8) * (7 / 8)
    for found in gradients:
        assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / rounds**0.5
    # Measured: 15.7 times less.
    assert float(plain.var() / baseline.var()) > 10


def test_entropy() -> None:
    focus = torch.tensor([[0.25, 0.25, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[True] * 4 + [False], [True] * 4 + [False], [True] * 2 + [False] * 3])
    log_focus = torch.where(mask, focus.clamp_min(1e-12).log(), -1e9).requires_grad_()
    expected = torch.tensor([math.log(4), 0.0, math.log(2)])
    torch.testing.assert_close(focus_entropy(focus, log_focus, mask), expected)
    total = entropy_sum(focus, log_focus, mask, torch.tensor([1.0, 1.0, 0.0]))
    assert abs(total.item() - math.log(4)) < 1e-6
    assert torch.autograd.grad(total, log_focus)[0].isfinite().all()


def test_entropy_gradient_spreads_the_focus() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    focus, mask = logits.softmax(-1), torch.ones(1, 3).bool()
    total = entropy_sum(focus, logits.log_softmax(-1), mask, torch.ones(1))
    (found,) = torch.autograd.grad(total, logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(torch.distributions.Categorical(logits=logits).entropy().sum(), logits)
    torch.testing.assert_close(found, wanted)
    assert found[0, 0] < 0 < found[0, 2]


def test_kl_is_torch_s_and_runs_from_base_to_tuned() -> None:
    generator = torch.Generator().manual_seed(6)
    base = torch.randn(3, 11, generator=generator).log_softmax(-1)
    tuned = torch.randn(3, 11, generator=generator).log_softmax(-1)
    wanted = functional.kl_div(tuned[:2], base[:2], reduction="sum", log_target=True)
    torch.testing.assert_close(kl_sum(base, tuned, torch.tensor([1.0, 1.0, 0.0])), wanted)
    assert kl_sum(base, base, torch.ones(3)).item() == 0
    assert abs(kl_sum(base, tuned, torch.ones(3)).item() - kl_sum(tuned, base, torch.ones(3)).item()) > 0.1


def test_kl_with_impossible_tokens() -> None:
    base = torch.tensor([[0.5, 0.5, 0.0]]).log()
    tuned = torch.tensor([[0.25, 0.25, 0.5]]).log().requires_grad_()
    value = kl_sum(base, tuned, torch.ones(1))
    assert abs(value.item() - math.log(2)) < 1e-6
    assert torch.autograd.grad(value, tuned)[0].isfinite().all()
    both = kl_sum(base, torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.ones(1))
    assert both.item() == 0
    assert kl_sum(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]).log(), torch.ones(1)).isposinf()


def test_mass_kl_is_torch_s_and_runs_from_base_to_tuned() -> None:
    base, tuned = torch.tensor([0.17, 0.6, 0.5]), torch.tensor([0.9, 0.55, 0.0])
    sides = [torch.distributions.Bernoulli(probs=mass[:2]) for mass in (base, tuned)]
    wanted = torch.distributions.kl_divergence(*sides).sum()
    torch.testing.assert_close(mass_kl_sum(base, tuned, torch.tensor([1.0, 1.0, 0.0])), wanted)
    torch.testing.assert_close(mass_kl_sum(base[:1], tuned[:1], ONE), torch.tensor(1.47), atol=0.01, rtol=0)
    torch.testing.assert_close(mass_kl_sum(base, base, torch.ones(3)), torch.tensor(0.0))


@pytest.mark.parametrize(
    ("base", "tuned"), [(0.2, 0.9), (0.2, 0.1), (0.0, 0.5), (1.0, 0.5), (1.0, 0.001), (1 + 2e-7, 0.5)]
)
def test_mass_kl_draws_to_the_base_from_either_side(base: float, tuned: float) -> None:
    mass = torch.tensor([tuned], requires_grad=True)
    value = mass_kl_sum(torch.tensor([base]), mass, torch.ones(1))
    assert value.isfinite() and value > 0
    (gradient,) = torch.autograd.grad(value, mass)
    assert (gradient.item() > 0) == (tuned > base)


def test_mass_kl_is_finite_where_all_or_nothing_falls_on_words() -> None:
    mass = torch.tensor([0.0, 1.0], requires_grad=True)
    value = mass_kl_sum(torch.tensor([1.0, 0.0]), mass, torch.ones(2))
    torch.testing.assert_close(value, torch.tensor(2 * 13.8155), atol=0.05, rtol=0)
    assert torch.autograd.grad(value, mass)[0].isfinite().all()


def test_task_loss() -> None:
    logprob = torch.tensor([[0.1, 0.3], [0.2, 0.2], [0.5, 0.25]]).log()
    label, weight = torch.tensor([1, 0, 1]), torch.tensor([1.0, 1.0, 0.0])
    labels = task_loss_sum(logprob, label, weight, "labels")
    torch.testing.assert_close(labels, -torch.tensor(0.75 * 0.5).log())
    vocabulary = task_loss_sum(logprob, label, weight, "vocabulary")
    torch.testing.assert_close(vocabulary, -torch.tensor(0.3 * 0.2).log())
    with pytest.raises(AfaError, match=r"objective\.task_scope"):
        task_loss_sum(logprob, label, weight, "tokens")


def test_task_loss_gradient_raises_the_right_answer() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(task_loss_sum(logits, torch.tensor([2]), torch.ones(1), "labels"), logits)
    torch.testing.assert_close(gradient, torch.tensor([[1 / 3, 1 / 3, -2 / 3]]))


def test_filler_rows_do_not_leak() -> None:
    logprob = torch.tensor([[0.1, 0.3], [torch.nan, torch.nan]]).log()
    assert task_loss_sum(logprob, torch.tensor([0, 0]), torch.tensor([1.0, 0.0]), "labels").isfinite()
    assert task_loss_sum(logprob, torch.tensor([0, 0]), torch.tensor([1.0, 1.0]), "labels").isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_float32_at_least(dtype: torch.dtype) -> None:
    logprob = torch.zeros(2, 4, dtype=dtype)
    assert task_loss_sum(logprob, torch.tensor([0, 0]), torch.ones(2), "labels").dtype == torch.float32
    assert kl_sum(logprob, logprob, torch.ones(2)).dtype == torch.float32
    assert mass_kl_sum(logprob[:, 0], logprob[:, 1], torch.ones(2)).dtype == torch.float32
