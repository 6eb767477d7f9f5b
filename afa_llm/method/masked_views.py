"""Views of a batch: as it is, or with words hidden from the decoder. Decoders have no [MASK], so there are other ways.

- `block`: the hidden words' keys are taken out of attention; every other token keeps its position. Trainer only.
- `replace`: each hidden token becomes a token of a filler. `delete`: hidden tokens are cut out and the row closes up.
  Both are other prompts, which a generator can answer. So is `infill` (infilled_views.py): other words stand in.

Source: our choice (step 4 of the method).

Legend: B reviews, K masks per review, R = B·K rows (row b·K + k), T tokens, W words, F fillers, A tokens of a filler.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from afa_llm.errors import AfaError
from afa_llm.records import Batch, View


def clean_view(batch: Batch) -> View:
    """The batch with nothing hidden."""
    return View(
        input_ids_BT=batch.input_ids_BT,
        attention_mask_BT=batch.attention_mask_BT,
        position_BT=_positions(batch.attention_mask_BT),
        word_of_token_BT=batch.word_of_token_BT,
        word_mask_BW=batch.word_mask_BW,
    )


def hide(
    batch: Batch,
    hidden_BKW: Tensor,
    kind: str,
    fillers: Sequence[Sequence[int]] = (),
    choice_BKW: Tensor | None = None,
) -> View:
    """The batch once for each mask, R = B·K rows (row b·K + k), with the words of `hidden_BKW` (bool) hidden.

    `fillers` (`replace` only): token ids of each; `choice_BKW` tells which of them stands in for a word, the first
    where it is None. Hidden words belong to no token of the view and leave its word mask. The readout position stays
    last. Raises AfaError for an unknown kind, for `replace` without fillers, or where the shapes differ.
    """
    hidden_RW = hidden_words(batch, hidden_BKW)
    rows = _repeat(batch, hidden_BKW.shape[1])
    hidden_RT = _tokens_of(hidden_RW, rows.word_of_token_BT)
    visible_RW = rows.word_mask_BW & ~hidden_RW
    if kind == "block":
        return _block(rows, hidden_RT, visible_RW)
    if kind == "replace":
        choice_RW = torch.zeros_like(hidden_RW, dtype=torch.long) if choice_BKW is None else choice_BKW.flatten(0, 1)
        return _replace(rows, hidden_RT, visible_RW, fillers, choice_RW.to(hidden_RW.device))
    if kind == "delete":
        return _delete(rows, hidden_RT, visible_RW)
    raise AfaError(f"masking.view = {kind!r}: not a way to hide words here; set one of block, replace, delete")


def hidden_words(batch: Batch, hidden_BKW: Tensor) -> Tensor:
    """Bool [R, W]: the words to hide that are really there. Raises AfaError where the shapes differ."""
    expected = (batch.size, *batch.word_mask_BW.shape[1:])
    if hidden_BKW.dim() != 3 or (hidden_BKW.shape[0], hidden_BKW.shape[2]) != expected:
        raise AfaError(
            f"hide: hidden words have shape {tuple(hidden_BKW.shape)}, wanted [{expected[0]}, K, {expected[1]}]"
        )
    return (hidden_BKW.bool() & batch.word_mask_BW[:, None]).flatten(0, 1)


def views_as_prompts(view: View) -> list[list[int]]:
    """Token ids of each row without padding, for a generator.

    Raises AfaError for a view with blocked words: blocking is no prompt. It shows in positions that are not
    consecutive.
    """
    real_BT = view.attention_mask_BT.bool()
    if not torch.equal(view.position_BT[real_BT], _positions(view.attention_mask_BT)[real_BT]):
        raise AfaError(
            "masking.view = block: a generator answers prompts and cannot block words inside them; "
            "set masking.view to replace, delete or infill"
        )
    ids, real = view.input_ids_BT.tolist(), real_BT.tolist()
    return [[token for token, keep in zip(*row, strict=True) if keep] for row in zip(ids, real, strict=True)]


def _block(rows: View, hidden_RT: Tensor, visible_RW: Tensor) -> View:
    return View(
        input_ids_BT=rows.input_ids_BT,
        attention_mask_BT=rows.attention_mask_BT.masked_fill(hidden_RT, 0),
        position_BT=rows.position_BT,
        word_of_token_BT=rows.word_of_token_BT.masked_fill(hidden_RT, -1),
        word_mask_BW=visible_RW,
    )


def _replace(
    rows: View, hidden_RT: Tensor, visible_RW: Tensor, fillers: Sequence[Sequence[int]], choice_RW: Tensor
) -> View:
    if not fillers or not all(fillers) or min(min(filler) for filler in fillers) < 0:
        raise AfaError(f"masking.fillers give the token ids {list(fillers)}: each needs one token or more")
    table_FA, length_F = _filler_table(fillers, rows.input_ids_BT)
    filler_RT = functional.pad(choice_RW, (1, 0)).gather(1, rows.word_of_token_BT.long() + 1)
    index_RT = _index_in_word(rows.word_of_token_BT) % length_F[filler_RT]
    return View(
        input_ids_BT=torch.where(hidden_RT, table_FA[filler_RT, index_RT], rows.input_ids_BT),
        attention_mask_BT=rows.attention_mask_BT,
        position_BT=rows.position_BT,
        word_of_token_BT=rows.word_of_token_BT.masked_fill(hidden_RT, -1),
        word_mask_BW=visible_RW,
    )


def _filler_table(fillers: Sequence[Sequence[int]], like: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids [F, A] padded with 0, and the length of each filler [F]."""
    longest = max(len(filler) for filler in fillers)
    padded = [[*filler, *[0] * (longest - len(filler))] for filler in fillers]
    return like.new_tensor(padded), torch.tensor([len(filler) for filler in fillers], device=like.device)


def _delete(rows: View, hidden_RT: Tensor, visible_RW: Tensor) -> View:
    keep_RT = rows.attention_mask_BT.bool() & ~hidden_RT
    # A stable sort of "kept" moves what goes to the left and leaves the kept tokens in their order on the right.
    order_RT = keep_RT.long().argsort(dim=1, stable=True)
    longest = max(keep_RT.sum(1).tolist(), default=0)
    order_RT = order_RT[:, order_RT.shape[1] - longest :]
    kept_RT = keep_RT.gather(1, order_RT)
    mask_RT = kept_RT.to(rows.attention_mask_BT.dtype)
    return View(
        # Id 0 under padding: every vocabulary has it, and nothing attends to it.
        input_ids_BT=rows.input_ids_BT.gather(1, order_RT).masked_fill(~kept_RT, 0),
        attention_mask_BT=mask_RT,
        position_BT=_positions(mask_RT),
        word_of_token_BT=rows.word_of_token_BT.gather(1, order_RT).masked_fill(~kept_RT, -1),
        word_mask_BW=visible_RW,
    )


def _positions(attention_mask_BT: Tensor) -> Tensor:
    """Position of each real token: how many real tokens stand before it. 0 in the padding."""
    return (attention_mask_BT.long().cumsum(-1) - 1).clamp_min(0)


def _repeat(batch: Batch, masks: int) -> View:
    clean = clean_view(batch)
    return View(**{name: tensor.repeat_interleave(masks, dim=0) for name, tensor in vars(clean).items()})


def _tokens_of(hidden_RW: Tensor, word_of_token_RT: Tensor) -> Tensor:
    """Which tokens belong to a hidden word, bool [R, T]."""
    no_word_first = functional.pad(hidden_RW, (1, 0), value=False)
    return no_word_first.gather(1, word_of_token_RT.long() + 1)


def _index_in_word(word_of_token_RT: Tensor) -> Tensor:
    """Index of each token within its run of one word, so that a word's fillers don't depend on what else is hidden."""
    at_T = torch.arange(word_of_token_RT.shape[1], device=word_of_token_RT.device).expand_as(word_of_token_RT)
    starts_RT = torch.ones_like(word_of_token_RT, dtype=torch.bool)
    starts_RT[:, 1:] = word_of_token_RT[:, 1:] != word_of_token_RT[:, :-1]
    return at_T - torch.where(starts_RT, at_T, 0).cummax(dim=1).values
