"""Terms of the loss beside task and policy gradient: what each does alone, and that each is a mean over reviews."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from round_parts import ALONE, Parts

from afa_llm.method.masking_policy import mask_counts


def test_the_entropy_term_spreads_the_focus(tiny_model: Path) -> None:
    only = ["objective.task_weight=0", "objective.policy_gradient_weight=0", "objective.entropy_weight=1"]
    parts = Parts(tiny_model, *only)
    spread = []
    for _ in range(4):
        parts.gradient(parts.batches(8))
        spread.append(parts.means.over_ranks(ALONE)["focus_entropy"])
        parts.engine.step(5e-3)
    assert spread[0] < spread[1] < spread[2] < spread[3]


ALONE_AT_WORK = ["objective.task_weight=0", "objective.policy_gradient_weight=0"]
"""With a further term of the objective: that term alone."""


@pytest.mark.parametrize(
    ("term", "metric", "least"),
    [("masked_base_weight", "masked_base_kl", 0.01), ("word_mass_weight", "word_mass_kl", 0.005)],
)
def test_a_term_that_holds_takes_back_to_the_base(tiny_model: Path, term: str, metric: str, least: float) -> None:
    """Of the answer on a masked view, and of the attention that the words get."""
    only = [*ALONE_AT_WORK, f"objective.{term}=1", "masking.direction=attended"]
    parts, found = Parts(tiny_model, *only), []
    for _ in range(4):
        parts.gradient(parts.batches(8))
        found.append(parts.means.over_ranks(ALONE)[metric])
        parts.engine.step(2e-4)
    assert found[0] > least, found
    assert found[0] > found[1] > found[2] > found[3], found
    untouched = Parts(tiny_model, *only)
    with torch.no_grad():
        for name, parameter in untouched.decoder.model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert untouched.gradient(untouched.batches(8)).norm() < 1e-5  # tuned is base: nothing to mend


@pytest.mark.parametrize("hidden", ["policy", "random"])
def test_the_answer_to_a_masked_view_is_drawn_to_that_on_the_whole_review(tiny_model: Path, hidden: str) -> None:
    """The gradient is that of KL(whole ‖ masked) by hand, where the whole review is a target without a gradient."""
    only = [*ALONE_AT_WORK, "objective.masked_consistency_weight=2", f"objective.masked_by={hidden}"]
    only += ["objective.masked_rate=0.7"] if hidden == "random" else ["masking.rate=0.5"]
    parts = Parts(tiny_model, *only)
    found = parts.gradient(parts.batches(5))
    told = parts.means.over_ranks(ALONE)["masked_consistency_kl"]

    by_hand = Parts(tiny_model, *only)
    (batch,), looker = by_hand.batches(5), by_hand.round.looker
    look = looker.look(batch, 0, differentiable=True)
    assert look.learned_view is not None
    whole_BC = look.clean.label_logprob_BC.detach().softmax(-1)
    masked_BC = looker.read_masked_view(look).label_logprob_BC.log_softmax(-1)
    kl = (whole_BC * (whole_BC.log() - masked_BC)).sum(-1).mean()
    by_hand.engine.optimizer.zero_grad()
    by_hand.engine.backward(2 * kl)
    expected = torch.cat([p.grad.flatten() for p in by_hand.engine.names.values() if p.grad is not None])
    assert told == pytest.approx(float(kl.detach()), rel=1e-5) and told > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-4)


def test_a_random_view_may_hide_more_than_the_masks_that_are_judged(tiny_model: Path) -> None:
    """The masks of the policy and the adversary's random ones stay at masking.rate."""
    rates = ["masking.rate=0.2", "objective.masked_consistency_weight=1", "objective.masked_by=random"]
    parts = Parts(tiny_model, *rates, "objective.masked_rate=0.6")
    (batch,) = parts.batches(6)
    look = parts.round.looker.look(batch, 0, differentiable=False)
    assert look.masks is not None and look.learned_view is not None and look.random_pair is not None
    words_B = batch.word_mask_BW.sum(-1)
    in_view_B = words_B - look.learned_view.word_mask_BW.sum(-1)
    for rate, hidden_B in ((0.2, look.masks.hidden_BKW[:, 0].sum(-1)), (0.6, in_view_B)):
        assert torch.equal(hidden_B, mask_counts(batch.word_mask_BW, rate))


@pytest.mark.parametrize(
    "term",
    ["masked_base_weight", "masked_consistency_weight", "word_mass_weight", "entropy_weight", "kl_weight"],
)
def test_a_term_is_a_mean_over_reviews(tiny_model: Path, term: str) -> None:
    """Reviews that come twice, in another micro-batch, change nothing: not the sum is held, but the mean."""
    found = []
    for sizes in ((4,), (4, 4)):
        parts = Parts(tiny_model, *ALONE_AT_WORK, f"objective.{term}=1", "masking.direction=attended")
        parts.material.train_prompts[4:8] = parts.material.train_prompts[:4]
        found.append(parts.gradient(parts.batches(*sizes)))
    assert found[0].norm() > 1e-4
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-4)


def test_the_base_s_word_mass_is_the_same_whoever_reads_the_masks(tiny_model: Path) -> None:
    """Judged by the base its clean pass is there already; else it is read for this alone."""
    found = []
    for reader in ("base", "tuned"):
        parts = Parts(tiny_model, f"rollouts.reader={reader}", "objective.word_mass_weight=0.5")
        look = parts.round.looker.look(parts.batches(6)[0], 0, differentiable=True)
        assert look.base_word_mass_B is not None and not look.base_word_mass_B.requires_grad
        found.append(look.base_word_mass_B)
        assert not torch.allclose(look.base_word_mass_B, look.focus.word_mass_B, atol=1e-5)
    torch.testing.assert_close(*found)
    with parts.decoder.base():
        _, focus = parts.round.looker.read_clean(parts.batches(6)[0])
    torch.testing.assert_close(found[0], focus.word_mass_B.detach())
