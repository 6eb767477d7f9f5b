"""One round: its gradient in any split, its terms and their weights."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from round_parts import ALONE, ARMS, Parts, one_word_prompt

from afa_llm.data.batching import collate
from afa_llm.errors import AfaError
from afa_llm.method.policy_gradient import leave_one_out
from afa_llm.models.attention_capture import RowRequest
from afa_llm.records import AnswerWords, DecoderReading, View
from afa_llm.rollouts.generator import TransformersGenerator
from afa_llm.training.looking import Look
from afa_llm.training.metrics import Means


@pytest.mark.parametrize(
    "arm",
    [
        "adversary",
        "drop",
        "all terms",
        "other words",
        "several fillers",
        "random view",
        "random view, no adversary",
        "rival",
        "shuffled",
    ],
)
def test_the_split_into_micro_batches_leaves_the_gradient(tiny_model: Path, arm: str) -> None:
    whole = Parts(tiny_model, *ARMS[arm]).gradient(Parts(tiny_model).batches(9))
    parts = Parts(tiny_model, *ARMS[arm])
    split = parts.gradient(parts.batches(2, 4, 3))
    filled = Parts(tiny_model, *ARMS[arm])
    with_fillers = filled.gradient(filled.batches(5, 4, fillers=3))
    scale = whole.norm()
    assert scale > 1e-3
    # Worst seen: 4e-5, from float32 sums in another order; a wrong denominator is off by a third.
    assert (split - whole).norm() / scale < 2e-4
    assert (with_fillers - whole).norm() / scale < 2e-4


@pytest.mark.parametrize("source", ["adversary", "probability_drop", "none"])
@pytest.mark.parametrize("by", ["policy", "random"])
def test_whose_mask_makes_the_view_that_is_learned_from(tiny_model: Path, source: str, by: str) -> None:
    """With an adversary the random mask is among the views of the round, else it is made for this."""
    settings = [f"objective.masked_by={by}", "objective.masked_task_weight=1", "masking.direction=both"]
    settings += ["objective.policy_gradient_weight=0"] if source == "none" else [f"reward.source={source}"]
    parts = Parts(tiny_model, *settings)
    (batch,) = parts.batches(6)
    looker = parts.round.looker
    look = looker.look(batch, 0, differentiable=False)
    assert look.masks is not None and look.learned_view is not None
    hidden_BKW = look.masks.hidden_BKW[:, :1] if by == "policy" else looker.masker.draw_random(batch, 0)
    assert torch.equal(look.learned_view.word_mask_BW, batch.word_mask_BW & ~hidden_BKW[:, 0])
    assert (look.masks.hidden_BKW[:, 0] != looker.masker.draw_random(batch, 0)[:, 0]).any()


def test_every_arm_changes_the_gradient_of_plain_tuning(tiny_model: Path) -> None:
    plain = Parts(tiny_model, "objective.policy_gradient_weight=0")
    reference = plain.gradient(plain.batches(8))
    for arm in ARMS.values():
        parts = Parts(tiny_model, *arm)
        assert (parts.gradient(parts.batches(8)) - reference).norm() > 1e-3 * reference.norm()


def test_plain_tuning_reads_no_masked_view(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(tiny_model, "objective.policy_gradient_weight=0")
    passes = []
    read = parts.decoder.read
    monkeypatch.setattr(parts.decoder, "read", lambda *a, **k: passes.append(1) or read(*a, **k))
    whole = parts.gradient(parts.batches(6))
    assert len(passes) == 1
    assert parts.round.feedback.adversary is None
    split = parts.gradient(parts.batches(2, 3, 1, fillers=2))
    assert len(passes) == 1 + 3  # nor any prompt twice
    assert (split - whole).norm() < 1e-5 * whole.norm()


@pytest.mark.parametrize("settings", [ARMS["all terms"], ["objective.policy_gradient_weight=0"]], ids=["all", "plain"])
def test_graphs_of_earlier_micro_batches_are_freed(
    tiny_model: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pass has one request for rows, which lives as long as its graph: to the end of backward, and where nothing
    learns from the rows as long as anybody holds them."""

    def alive(*sizes: int) -> tuple[int, int]:
        """The most graphs at once during a round, and those left after it."""
        parts = Parts(tiny_model, *settings, "model.gradient_checkpointing=true")
        requests: list[weakref.ref] = []
        counts = []
        make, backward = parts.decoder._request, parts.engine.backward

        def request(*arguments: Any, **named: Any) -> RowRequest:
            made = make(*arguments, **named)
            requests.append(weakref.ref(made))
            return made

        def walk(loss: torch.Tensor) -> None:
            gc.collect()
            counts.append(sum(known() is not None for known in requests))
            backward(loss)

        monkeypatch.setattr(parts.decoder, "_request", request)
        monkeypatch.setattr(parts.engine, "backward", walk)
        parts.gradient(parts.batches(*sizes))
        gc.collect()
        return max(counts), sum(known() is not None for known in requests)

    few, many = alive(2, 2), alive(2, 2, 2, 2, 2)
    assert many == few
    assert many[1] == 0


def test_more_policy_gradient_weight_moves_the_gradient_in_proportion(tiny_model: Path) -> None:
    def gradient(weight: float) -> torch.Tensor:
        parts = Parts(tiny_model, "reward.source=probability_drop", f"objective.policy_gradient_weight={weight}")
        return parts.gradient(parts.batches(8))

    none, once, twice = gradient(1e-9), gradient(0.5), gradient(1.0)
    assert torch.allclose(twice - none, 2 * (once - none), atol=2e-6)


def test_the_policy_gradient_falls_over_the_run(tiny_model: Path) -> None:
    def gradient(weight: float, progress: float) -> torch.Tensor:
        falling = [f"objective.policy_gradient_weight={weight}", "objective.policy_gradient_schedule=linear"]
        parts = Parts(tiny_model, "reward.source=probability_drop", *falling)
        return parts.gradient(parts.batches(8), progress=progress)

    assert torch.allclose(gradient(1.0, 0.75), gradient(0.25, 0), atol=2e-6)
    assert (gradient(1.0, 0.75) - gradient(1.0, 0)).norm() > 1e-3


def test_normalised_advantages_do_not_know_the_scale_of_the_reward(tiny_model: Path) -> None:
    def gradient(factor: float, *more: str, sizes: tuple[int, ...] = (8,)) -> torch.Tensor:
        settings = ["reward.source=probability_drop", "objective.task_weight=0", "objective.group_floor=0", *more]
        parts = Parts(tiny_model, *settings, "objective.policy_gradient_weight=1")
        collect = parts.round.looker.collect

        def scaled(look: Look) -> None:
            collect(look)
            assert look.drop_BK is not None
            look.drop_BK = look.drop_BK * factor

        parts.round.looker.collect = scaled
        return parts.gradient(parts.batches(*sizes))

    normal = "reward.normalise=true"
    large = gradient(500.0, normal)
    assert (gradient(1000.0, normal) - large).norm() / large.norm() < 1e-5
    assert (gradient(500.0, normal, sizes=(3, 5)) - large).norm() / large.norm() < 1e-4
    assert (gradient(1000.0) - 2 * gradient(500.0)).norm() < 1e-4 * gradient(1000.0).norm()
    tiny = gradient(1e-6, normal)  # under the floor: scaled by it, not blown up
    assert (tiny - 100 * gradient(1e-6)).norm() < 1e-4 * tiny.norm()
    assert tiny.norm() < 0.1 * large.norm()


def test_normalised_advantages_have_a_mean_square_of_one(tiny_model: Path) -> None:
    """Over the masks that teach: a one-word review, whose masks don't, leaves the scale as it is."""
    only = ["objective.task_weight=0", "objective.policy_gradient_weight=1", "reward.source=probability_drop"]
    parts = Parts(tiny_model, *only)
    reward, found = parts.round.feedback.reward, []

    def enlarged(looks: Sequence[Look], epoch: int, means: Means) -> None:
        (look,) = looks
        assert look.drop_BK is not None
        look.drop_BK = 1000 * look.drop_BK  # far above the smallest deviation
        reward(looks, epoch, means)
        found.append(leave_one_out(look.reward_BK, parts.round.looker.face_K)[look.kept_BK])

    parts.round.feedback.reward = enlarged
    prompts, pad = [*parts.batches(6)[0].prompts, one_word_prompt(parts)], parts.decoder.pad_token_id
    raw = parts.gradient([collate(prompts, pad)])
    assert len(found[0]) == 6 * 4
    sections = parts.config.reward.model_copy(update={"normalise": True})
    parts.round.config = parts.config.model_copy(update={"reward": sections})
    normal = parts.gradient([collate(prompts, pad)])
    expected = raw / found[0].square().mean().sqrt()
    assert (normal - expected).norm() / expected.norm() < 1e-4  # by reviews instead of masks it is off by a half


def test_reviews_without_feedback_leave_the_policy_gradient(tiny_model: Path) -> None:
    """Its denominator is the number of masks that teach, not of reviews: one-word reviews change nothing."""
    only = ["objective.task_weight=0", "objective.policy_gradient_weight=1", "reward.source=probability_drop"]
    reference = Parts(tiny_model, *only)
    alone = reference.gradient(reference.batches(6))
    parts = Parts(tiny_model, *only)
    prompts = list(parts.batches(6)[0].prompts)
    beside = parts.gradient([collate([*prompts, *[one_word_prompt(parts)] * 3], parts.decoder.pad_token_id)])
    assert alone.norm() > 1e-4
    assert (beside - alone).norm() / alone.norm() < 2e-4  # worst seen 2e-6; by reviews it is off by a third


def test_a_one_word_review_gives_no_feedback_and_no_fault(tiny_model: Path) -> None:
    parts = Parts(tiny_model)
    batch = collate([one_word_prompt(parts), parts.material.train_prompts[1]], parts.decoder.pad_token_id)
    assert parts.gradient([batch]).isfinite().all()
    assert parts.means.over_ranks(ALONE)["kept_share"] == 0.5


def test_dropout_does_not_give_the_clean_view_away(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean and masked views that the adversary compares are both read without dropout."""
    parts = Parts(tiny_model, "lora.dropout=0.5")
    modes = []
    read = parts.decoder.read
    monkeypatch.setattr(
        parts.decoder, "read", lambda *a, **k: modes.append(parts.decoder.model.training) or read(*a, **k)
    )
    parts.gradient(parts.batches(6))
    assert modes == [False, False, True]


def test_the_shown_view_has_the_first_masks_words_and_no_others(tiny_model: Path) -> None:
    only = ["objective.task_weight=0", "objective.policy_gradient_weight=0", "objective.shown_task_weight=1"]
    parts = Parts(tiny_model, *only, "masking.direction=attended", "masking.view=delete")
    batch = parts.batches(6)[0]
    look = parts.round.looker.look(batch, 0, differentiable=True)
    assert look.masks is not None
    shown_BW = look.masks.hidden_BKW[:, 0]
    prompts = []
    for row, prompt in enumerate(batch.prompts):
        kept = zip(prompt.token_ids, prompt.word_of_token, strict=True)
        prompts.append([token for token, word in kept if word < 0 or shown_BW[row, word]])
    answers = TransformersGenerator(parts.decoder, 8).answer(prompts, parts.material.answers)
    torch.testing.assert_close(
        parts.round.looker.read_shown(look, 0).label_logprob_BC.detach(), answers.label_logprob_NC, atol=1e-5, rtol=0
    )
    losses = []
    for _ in range(4):
        assert parts.gradient([batch]).norm() > 0
        losses.append(parts.means.over_ranks(ALONE)["shown_task_loss"])
        parts.engine.step(3e-4)
    assert losses[0] > losses[1] > losses[2] > losses[3], losses


def test_words_out_of_reach_are_told(tiny_model: Path) -> None:
    """A window shorter than the text after the review: nothing moved the focus, and nobody was told."""
    parts = Parts(tiny_model)
    read = parts.decoder.read

    def of_a_short_window(view: View, answers: AnswerWords, *, vocabulary: bool = False) -> DecoderReading:
        found = read(view, answers, vocabulary=vocabulary)
        return replace(found, rows_LBHT=found.rows_LBHT.masked_fill(view.word_of_token_BT[None, :, None] >= 0, 0.0))

    parts.decoder.read = of_a_short_window  # type: ignore[method-assign]
    with pytest.raises(AfaError, match=r"attention.layers: the readout position sees no word .* in layers \[1, 2\]"):
        parts.round.play(parts.batches(3), epoch=0, step=0)
