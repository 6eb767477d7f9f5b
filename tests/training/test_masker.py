"""Masks of a batch: which noise is behind them, and what they make of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from round_parts import Parts, one_word_prompt

from afa_llm.config_loading import load_config
from afa_llm.data.batching import collate
from afa_llm.records import Batch, Fillings, GappedPrompt
from afa_llm.training.masker import Masker


@pytest.fixture(scope="module")
def parts(tiny_model: Path) -> Parts:
    return Parts(tiny_model)


@pytest.fixture
def batch(parts: Parts) -> Batch:
    return parts.batches(16)[0]


@pytest.fixture
def masker(parts: Parts) -> Masker:
    return parts.round.looker.masker


def flat(batch: Batch) -> torch.Tensor:
    """A focus that prefers no word: the noise alone decides."""
    return torch.zeros(batch.word_mask_BW.shape)


def test_the_random_mask_has_noise_of_its_own(masker: Masker, batch: Batch) -> None:
    """Else it would be one of the policy's own masks wherever the focus says little."""
    random_BW = masker.draw_random(batch, epoch=0)[:, 0]
    hidden_BKW = masker.draw(batch, flat(batch), epoch=0).hidden_BKW
    assert hidden_BKW.sum(-1).eq(random_BW.sum(-1)[:, None]).all()  # of the same size
    same_BK = (hidden_BKW == random_BW[:, None]).all(-1)
    assert same_BK.float().mean(0).max() < 0.5
    assert not torch.equal(random_BW, masker.draw_random(batch, epoch=1)[:, 0])
    assert torch.equal(random_BW, masker.draw_random(batch, epoch=0)[:, 0])


def test_masks_of_a_review_differ_and_follow_the_focus(masker: Masker, batch: Batch) -> None:
    hidden_BKW = masker.draw(batch, flat(batch), epoch=0).hidden_BKW
    assert not torch.equal(hidden_BKW[:, 0], hidden_BKW[:, 1])
    wanted_BW = torch.zeros(batch.word_mask_BW.shape)
    wanted_BW[:, 0] = 50.0  # log focus: the first word of each review, always
    hidden_BKW = masker.draw(batch, wanted_BW, epoch=0).hidden_BKW
    assert hidden_BKW[:, masker.face_K > 0, 0].all()
    assert not hidden_BKW[:, masker.face_K < 0, 0].any()


def test_hiding_and_showing_are_opposites(masker: Masker, batch: Batch) -> None:
    chosen_BKW = masker.draw_random(batch, epoch=0)
    hidden = masker.hide(batch, chosen_BKW, [0], epoch=0).view
    shown = masker.show_only(batch, chosen_BKW, epoch=0)
    assert torch.equal(hidden.word_mask_BW, batch.word_mask_BW & ~chosen_BKW[:, 0])
    assert torch.equal(shown.word_mask_BW, batch.word_mask_BW & chosen_BKW[:, 0])


@pytest.mark.parametrize("view", ["block", "replace", "delete", "infill"])
def test_a_review_of_one_word_is_shown_whole(parts: Parts, view: str) -> None:
    """No mask of it hides its word, so none could show it."""
    prompts = [one_word_prompt(parts), parts.material.train_prompts[0]]
    batch = collate(prompts, parts.decoder.pad_token_id)
    masker = Masker(load_config(None, [f"masking.view={view}"]), fillers=[(5,)])
    masks = masker.draw(batch, flat(batch), epoch=0)
    assert not masks.hidden_BKW[0].any()
    shown = masker.show_only(batch, masks.hidden_BKW[:, :1], epoch=0)
    assert torch.equal(shown.word_mask_BW[0], batch.word_mask_BW[0])
    assert shown.input_ids_BT[0][shown.attention_mask_BT[0].bool()].tolist() == list(prompts[0].token_ids)
    assert torch.equal(shown.word_mask_BW[1], batch.word_mask_BW[1] & masks.hidden_BKW[1, 0])


def test_gaps_and_those_left_out_are_counted(batch: Batch) -> None:
    def fill(prompts: Sequence[GappedPrompt], *, seed: int, epoch: int) -> list[Fillings]:
        """Nothing for the first gap of each prompt, the hidden words themselves for the others."""
        return [tuple(sum(gap.words, ()) if n else () for n, gap in enumerate(prompt.gaps)) for prompt in prompts]

    infiller: Any = SimpleNamespace(fill=fill)
    masker = Masker(load_config(None, ["masking.view=infill", "masking.rate=0.4"]), infiller=infiller)
    found = masker.hide(batch, masker.draw_random(batch, epoch=0), [0], epoch=0)
    assert found.gaps_left_out == batch.size
    assert found.gaps > 1.5 * batch.size
