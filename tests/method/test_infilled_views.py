"""Gaps of hidden words, and the views with other words in them.

Legend: B reviews, K masks, R rows of a view, T tokens, W words.
"""

from __future__ import annotations

import pytest
import torch
from method_examples import make_batch, prompt

from afa_llm.errors import AfaError
from afa_llm.method.infilled_views import gapped_prompts, infilled_view
from afa_llm.method.masked_views import clean_view, hide, views_as_prompts
from afa_llm.records import Gap

# Tokens: BOS 1, prefix 2 3, words 10 | 11 12 | 13, suffix 4 5; and a longer mate of words 20 | 21 | 22 | 23 24.
SHORT, LONG = prompt([1, 2, 1]), prompt([1, 1, 1, 2], first_id=20)
HIDDEN = torch.tensor([[[0, 1, 0, 0], [1, 0, 1, 0]], [[0, 0, 1, 1], [0, 0, 0, 0]]]).bool()
FILLINGS = [((70,),), ((71, 72, 73), ()), ((74, 75, 76),), ()]


def test_neighbouring_hidden_words_make_one_gap() -> None:
    found = gapped_prompts(make_batch([SHORT, LONG]), HIDDEN, [5, 9])
    assert [row.gaps for row in found] == [
        (Gap(4, 6, ((11, 12),)),),
        (Gap(3, 4, ((10,),)), Gap(6, 7, ((13,),))),
        (Gap(5, 8, ((22,), (23, 24))),),
        (),
    ]
    assert [row.token_ids for row in found] == [SHORT.token_ids] * 2 + [LONG.token_ids] * 2
    short, long = 10 * 7_000_000_007, 20 * 7_000_000_007
    assert [row.name for row in found] == [(short, 5), (short, 9), (long, 5), (long, 9)]


def test_a_token_of_no_word_parts_two_gaps() -> None:
    apart = prompt([1, 1])
    apart = type(apart)(apart.example, (1, 2, 3, 10, 60, 11, 4, 5), (-1, -1, -1, 0, -1, 1, -1, -1))
    (found,) = gapped_prompts(make_batch([apart]), torch.ones(1, 1, 2).bool(), [0])
    assert found.gaps == (Gap(3, 4, ((10,),)), Gap(5, 6, ((11,),)))


def test_the_view_holds_the_words_and_maps_the_others() -> None:
    batch = make_batch([SHORT, LONG])
    view = infilled_view(batch, HIDDEN, gapped_prompts(batch, HIDDEN, [0, 1]), FILLINGS)
    assert views_as_prompts(view) == [
        [1, 2, 3, 10, 70, 13, 4, 5],
        [1, 2, 3, 71, 72, 73, 11, 12, 4, 5],
        [1, 2, 3, 20, 21, 74, 75, 76, 4, 5],
        list(LONG.token_ids),
    ]
    assert view.input_ids_BT[0].tolist() == [0, 0, 1, 2, 3, 10, 70, 13, 4, 5]
    assert view.position_BT[0].tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert view.attention_mask_BT[0].tolist() == [0, 0] + [1] * 8
    assert view.word_of_token_BT.tolist() == [
        [-1, -1, -1, -1, -1, 0, -1, 2, -1, -1],
        [-1, -1, -1, -1, -1, -1, 1, 1, -1, -1],
        [-1, -1, -1, 0, 1, -1, -1, -1, -1, -1],
        [-1, -1, -1, 0, 1, 2, 3, 3, -1, -1],
    ]
    assert torch.equal(view.word_mask_BW, hide(batch, HIDDEN, "delete").word_mask_BW)


def test_nothing_found_is_the_view_with_the_words_cut_out() -> None:
    batch = make_batch([SHORT, LONG])
    prompts = gapped_prompts(batch, HIDDEN, [0, 1])
    view = infilled_view(batch, HIDDEN, prompts, [tuple(() for _ in row.gaps) for row in prompts])
    cut = hide(batch, HIDDEN, "delete")
    assert all(torch.equal(getattr(view, name), getattr(cut, name)) for name in vars(cut))


def test_padding_and_batch_mates_change_no_row() -> None:
    tight_batch, wide_batch = make_batch([SHORT, LONG]), make_batch([LONG, SHORT], extra_tokens=4, extra_words=3)
    tight = infilled_view(tight_batch, HIDDEN, gapped_prompts(tight_batch, HIDDEN, [0, 1]), FILLINGS)
    wide_hidden = torch.nn.functional.pad(HIDDEN, (0, 3)).flip(0)
    wide_prompts = gapped_prompts(wide_batch, wide_hidden, [0, 1])
    wide = infilled_view(wide_batch, wide_hidden, wide_prompts, [*FILLINGS[2:], *FILLINGS[:2]])
    for row, other in enumerate([2, 3, 0, 1]):
        length = int(tight.position_BT[row, -1]) + 1
        for name in ("input_ids_BT", "attention_mask_BT", "position_BT", "word_of_token_BT"):
            assert torch.equal(getattr(tight, name)[row, -length:], getattr(wide, name)[other, -length:])


def test_words_that_are_not_there_leave_no_gap() -> None:
    batch = make_batch([SHORT, LONG])
    beyond = torch.zeros(2, 1, 4).bool()
    beyond[0, 0, 3] = True
    prompts = gapped_prompts(batch, beyond, [0])
    assert [row.gaps for row in prompts] == [(), ()]
    view = infilled_view(batch, beyond, prompts, [(), ()])
    assert views_as_prompts(view) == views_as_prompts(clean_view(batch))
    assert torch.equal(view.word_mask_BW, batch.word_mask_BW)


def test_wrong_requests_are_refused() -> None:
    batch = make_batch([SHORT, LONG])
    with pytest.raises(AfaError, match="wanted"):
        gapped_prompts(batch, HIDDEN[..., :3], [0, 1])
    with pytest.raises(AfaError, match="4 masks, 4 prompts and 3 fillings"):
        infilled_view(batch, HIDDEN, gapped_prompts(batch, HIDDEN, [0, 1]), FILLINGS[:3])
