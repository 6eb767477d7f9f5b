"""Terms of the loss beside task and policy gradient: what each does alone, and that each is a mean over reviews."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from round_parts import ALONE, Parts


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


@pytest.mark.parametrize("term", ["masked_base_weight", "word_mass_weight", "entropy_weight", "kl_weight"])
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
