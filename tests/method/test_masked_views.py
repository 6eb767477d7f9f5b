"""Views: what each way of hiding leaves in place.

Legend: B reviews, K masks, R rows of a view, T tokens, W words.
"""

from __future__ import annotations

import pytest
import torch
from method_examples import make_batch, prompt

from afa_llm.errors import AfaError
from afa_llm.method.masked_views import clean_view, hide, views_as_prompts

# Tokens: BOS 1, prefix 2 3, words 10 | 11 12 | 13, suffix 4 5; and a longer mate of words 20 | 21 | 22 | 23 24.
SHORT, LONG = prompt([1, 2, 1]), prompt([1, 1, 1, 2], first_id=20)


def masks(*hidden: tuple[int, ...], words: int = 4) -> torch.Tensor:
    return torch.tensor([[w in words_hidden for w in range(words)] for words_hidden in hidden])


HIDDEN = torch.stack([masks((1,), (0, 2)), masks((3,), ())])


def test_clean_view_counts_real_tokens() -> None:
    view = clean_view(make_batch([SHORT, LONG]))
    assert view.position_BT[0].tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert view.position_BT[1].tolist() == list(range(10))


def test_block_takes_keys_out_and_moves_nothing() -> None:
    batch = make_batch([SHORT, LONG])
    view = hide(batch, HIDDEN, "block")
    assert torch.equal(view.input_ids_BT, batch.input_ids_BT.repeat_interleave(2, 0))
    assert torch.equal(view.position_BT, clean_view(batch).position_BT.repeat_interleave(2, 0))
    assert view.attention_mask_BT.tolist() == [
        [0, 1, 1, 1, 1, 0, 0, 1, 1, 1],
        [0, 1, 1, 1, 0, 1, 1, 0, 1, 1],
        [1, 1, 1, 1, 1, 1, 0, 0, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    ]
    assert view.word_of_token_BT[0].tolist() == [-1, -1, -1, -1, 0, -1, -1, 2, -1, -1]
    assert view.word_mask_BW.tolist() == [
        [True, False, True, False],
        [False, True, False, False],
        [True, True, True, False],
        [True, True, True, True],
    ]


def test_replace_cycles_its_fillers_within_each_word() -> None:
    view = hide(make_batch([SHORT, LONG]), HIDDEN, "replace", ((90, 91),))
    assert views_as_prompts(view) == [
        [1, 2, 3, 10, 90, 91, 13, 4, 5],
        [1, 2, 3, 90, 11, 12, 90, 4, 5],
        [1, 2, 3, 20, 21, 22, 90, 91, 4, 5],
        list(LONG.token_ids),
    ]
    assert torch.equal(view.position_BT, clean_view(make_batch([SHORT, LONG])).position_BT.repeat_interleave(2, 0))
    assert view.word_of_token_BT[1].tolist() == [-1, -1, -1, -1, -1, 1, 1, -1, -1, -1]


def test_a_replaced_word_does_not_depend_on_other_hidden_words() -> None:
    batch = make_batch([prompt([3, 1, 3])])
    both = hide(batch, masks((0, 2), words=3)[None], "replace", ((90, 91),)).input_ids_BT
    one = hide(batch, masks((2,), words=3)[None], "replace", ((90, 91),)).input_ids_BT
    assert both[0, 7:].tolist() == one[0, 7:].tolist() == [90, 91, 90, 4, 5]


def test_each_word_has_the_filler_chosen_for_it() -> None:
    choice = torch.tensor([[[0, 1, 0, 0], [1, 0, 1, 0]], [[0, 0, 0, 1], [0, 0, 0, 0]]])
    view = hide(make_batch([SHORT, LONG]), HIDDEN, "replace", ((90, 91), (80,)), choice)
    assert views_as_prompts(view) == [
        [1, 2, 3, 10, 80, 80, 13, 4, 5],
        [1, 2, 3, 80, 11, 12, 80, 4, 5],
        [1, 2, 3, 20, 21, 22, 80, 80, 4, 5],
        list(LONG.token_ids),
    ]
    other = hide(make_batch([SHORT, LONG]), HIDDEN, "replace", ((90, 91), (80,)), 1 - choice)
    assert views_as_prompts(other)[0] == [1, 2, 3, 10, 90, 91, 13, 4, 5]


def test_delete_closes_the_row_up_and_keeps_the_readout_last() -> None:
    view = hide(make_batch([SHORT, LONG]), HIDDEN, "delete")
    assert views_as_prompts(view) == [
        [1, 2, 3, 10, 13, 4, 5],
        [1, 2, 3, 11, 12, 4, 5],
        [1, 2, 3, 20, 21, 22, 4, 5],
        list(LONG.token_ids),
    ]
    assert view.input_ids_BT[0].tolist() == [0, 0, 0, 1, 2, 3, 10, 13, 4, 5]
    assert view.attention_mask_BT[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert view.position_BT[0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert view.word_of_token_BT[0].tolist() == [-1] * 6 + [0, 2, -1, -1]
    assert view.word_of_token_BT[2].tolist() == [-1] * 5 + [0, 1, 2, -1, -1]


def test_delete_drops_columns_that_are_padding_everywhere() -> None:
    view = hide(make_batch([SHORT], extra_tokens=5), masks((0, 1, 2), words=3)[None], "delete")
    assert view.input_ids_BT.tolist() == [[1, 2, 3, 4, 5]]
    assert view.position_BT.tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("kind", ["block", "replace", "delete"])
def test_padding_and_batch_mates_change_no_row(kind: str) -> None:
    tight = hide(make_batch([SHORT, LONG]), HIDDEN, kind, ((90,),))
    wide_hidden = torch.nn.functional.pad(HIDDEN, (0, 3)).flip(0)
    wide = hide(make_batch([LONG, SHORT], extra_tokens=4, extra_words=3), wide_hidden, kind, ((90,),))
    for row, other in enumerate([2, 3, 0, 1]):
        length = int(tight.position_BT[row, -1]) + 1
        for name in ("input_ids_BT", "attention_mask_BT", "position_BT", "word_of_token_BT"):
            assert torch.equal(getattr(tight, name)[row, -length:], getattr(wide, name)[other, -length:])
        assert torch.equal(tight.word_mask_BW[row], wide.word_mask_BW[other, :4])


@pytest.mark.parametrize("kind", ["block", "replace", "delete"])
def test_words_that_are_not_there_cannot_be_hidden(kind: str) -> None:
    batch = make_batch([SHORT, LONG])
    beyond = masks((3,))[None].expand(2, 1, 4).clone()
    beyond[1] = False
    view = hide(batch, beyond, kind, ((90,),))
    assert torch.equal(view.word_mask_BW, batch.word_mask_BW)
    assert views_as_prompts(view) == views_as_prompts(clean_view(batch))


def test_reviews_without_words() -> None:
    batch = make_batch([prompt([])])
    for kind in ("block", "replace", "delete"):
        assert views_as_prompts(hide(batch, torch.zeros(1, 2, 0).bool(), kind, ((90,),))) == [[1, 2, 3, 4, 5]] * 2


def test_blocked_words_are_no_prompt() -> None:
    with pytest.raises(AfaError, match=r"set masking\.view to replace, delete or infill"):
        views_as_prompts(hide(make_batch([SHORT, LONG]), HIDDEN, "block"))


def test_a_blocked_first_token_is_no_prompt_either() -> None:
    # Without BOS and prefix a blocked first word looks like padding; its position tells.
    batch = make_batch([SHORT])
    bare = type(batch)(**{**vars(batch), **{n: getattr(batch, n)[:, 3:] for n in vars(batch) if n.endswith("_BT")}})
    with pytest.raises(AfaError, match="block"):
        views_as_prompts(hide(bare, masks((0,), words=3)[None], "block"))


def test_wrong_requests_are_refused() -> None:
    batch = make_batch([SHORT, LONG])
    with pytest.raises(AfaError, match="set one of block, replace, delete"):
        hide(batch, HIDDEN, "erase")
    with pytest.raises(AfaError, match=r"masking\.fillers"):
        hide(batch, HIDDEN, "replace")
    with pytest.raises(AfaError, match=r"masking\.fillers"):
        hide(batch, HIDDEN, "replace", ((90,), ()))
    with pytest.raises(AfaError, match="wanted"):
        hide(batch, HIDDEN[..., :3], "block")


def test_the_batch_is_left_as_it_was() -> None:
    batch, fresh = make_batch([SHORT, LONG]), make_batch([SHORT, LONG])
    for kind in ("block", "replace", "delete"):
        hide(batch, HIDDEN, kind, ((90,),))
    assert all(torch.equal(getattr(batch, n), getattr(fresh, n)) for n in vars(batch) if n != "prompts")
