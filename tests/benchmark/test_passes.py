"""Passes counted from settings are those that the decoder counts in a round."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from round_parts import ARMS, Parts

from afa_llm.benchmark.passes import passes_per_review
from afa_llm.errors import AfaError
from afa_llm.models.pass_tokens import PassTokens

MORE = {
    "plain": ["objective.policy_gradient_weight=0"],
    "base": ["reward.source=probability_drop", "rollouts.reader=base", "objective.masked_base_weight=1"],
    "shown": ["masking.direction=attended", "objective.shown_task_weight=1"],
    "two parts": ["training.micro_batch_size=4"],
    "plain, two parts": ["objective.policy_gradient_weight=0", "training.micro_batch_size=4"],
    "sink held": ["objective.word_mass_weight=1"],
    "sink held, judged by the base": ["objective.word_mass_weight=1", "rollouts.reader=base"],
    "sink held, no feedback": ["objective.policy_gradient_weight=0", "objective.word_mass_weight=1"],
    "dropout": ["lora.dropout=0.1"],
}


@pytest.mark.parametrize("arm", [name for name in (ARMS | MORE) if name not in ("all terms", "other words")])
def test_passes(tiny_model: Path, arm: str) -> None:
    parts = Parts(tiny_model, "training.reviews_per_step=8", "training.micro_batch_size=8", *(ARMS | MORE)[arm])
    prompt = parts.batches(1)[0].prompts[0]
    parts.material.train_prompts[:] = [prompt] * 8  # of one length: no padding, so tokens tell passes
    parts.decoder.tokens = PassTokens()
    parts.gradient(parts.batches(*([4, 4] if "two parts" in arm else [8])))
    tokens = 8 * len(prompt.token_ids)
    found = (parts.decoder.tokens.forward / tokens, parts.decoder.tokens.backward / tokens)
    assert found == passes_per_review(parts.config)


def test_proposals_cannot_be_counted_beforehand(tiny_model: Path) -> None:
    with pytest.raises(AfaError, match=r"masking\.view = infill"):
        passes_per_review(Parts(tiny_model, *ARMS["other words"]).config)
