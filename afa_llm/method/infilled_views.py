"""Counterfactual views: other words stand where words were hidden, so that the view is a review of its own.

Who proposes the words is not the method's business: `gapped_prompts` says where they are wanted, `infilled_view` puts
them in. A gap is a run of hidden words whose tokens touch; what stands in it belongs to no word of the review, as the
tokens of a filler do, for the policy chose the hidden words and has no say in these.

Source: our choice. Words in place of a mask keep the input in the model's own distribution, as Kim et al. 2020 argue
for explanations of classifiers ("Interpretation of NLP models through input marginalization").

Legend: B reviews, K masks per review, R = B·K rows (row b·K + k), T tokens, W words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from afa_llm.errors import AfaError
from afa_llm.method.masked_views import hidden_words
from afa_llm.records import Batch, Fillings, Gap, GappedPrompt, View


def gapped_prompts(batch: Batch, hidden_BKW: Tensor, mask_indices: Sequence[int]) -> list[GappedPrompt]:
    """The prompts of the rows with their gaps, R = B·K in all. `mask_indices` names the K masks."""
    hidden_RW = hidden_words(batch, hidden_BKW).tolist()
    keys, found = batch.review_key_B.tolist(), []
    for row, hidden in enumerate(hidden_RW):
        b, k = divmod(row, len(mask_indices))
        prompt = batch.prompts[b]
        gaps = _gaps(prompt.token_ids, prompt.word_of_token, hidden)
        found.append(GappedPrompt(prompt.token_ids, gaps, (keys[b], mask_indices[k])))
    return found


def infilled_view(
    batch: Batch, hidden_BKW: Tensor, prompts: Sequence[GappedPrompt], fillings: Sequence[Fillings]
) -> View:
    """The rows with their gaps filled, left-padded anew. `prompts` are those of `gapped_prompts` for the same masks.

    Raises AfaError where prompts, masks and fillings differ in number.
    """
    hidden_RW = hidden_words(batch, hidden_BKW)
    if not len(hidden_RW) == len(prompts) == len(fillings):
        raise AfaError(f"infill: {len(hidden_RW)} masks, {len(prompts)} prompts and {len(fillings)} fillings")
    masks, rows = hidden_BKW.shape[1], []
    for row, (prompt, filling) in enumerate(zip(prompts, fillings, strict=True)):
        rows.append(_fill(prompt, batch.prompts[row // masks].word_of_token, filling))
    longest = max((len(ids) for ids, _ in rows), default=0)
    device = batch.input_ids_BT.device
    # Id 0 under padding: every vocabulary has it, and nothing attends to it.
    ids_RT = torch.tensor([[0] * (longest - len(ids)) + ids for ids, _ in rows], device=device)
    mask_RT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids, _ in rows], device=device)
    word_RT = torch.tensor([[-1] * (longest - len(words)) + words for _, words in rows], device=device)
    repeated_RW = batch.word_mask_BW.repeat_interleave(masks, 0)
    return View(ids_RT, mask_RT, (mask_RT.cumsum(-1) - 1).clamp_min(0), word_RT, repeated_RW & ~hidden_RW)


def _gaps(token_ids: Sequence[int], word_of_token: Sequence[int], hidden: Sequence[bool]) -> tuple[Gap, ...]:
    """Maximal runs of tokens of hidden words."""
    gaps: list[Gap] = []
    words: list[list[int]] = []
    start = last = -1
    for at, (token, word) in enumerate([*zip(token_ids, word_of_token, strict=True), (-1, -1)]):
        if word >= 0 and hidden[word]:
            if not words:
                start = at
            if word == last and words:
                words[-1].append(token)
            else:
                words.append([token])
        elif words:
            gaps.append(Gap(start, at, tuple(map(tuple, words))))
            words = []
        last = word
    return tuple(gaps)


def _fill(prompt: GappedPrompt, word_of_token: Sequence[int], fillings: Fillings) -> tuple[list[int], list[int]]:
    """Token ids and the word of each, with the fillings in the gaps."""
    ids: list[int] = []
    words: list[int] = []
    at = 0
    for gap, filling in zip(prompt.gaps, fillings, strict=True):
        ids += [*prompt.token_ids[at : gap.start], *filling]
        words += [*word_of_token[at : gap.start], *[-1] * len(filling)]
        at = gap.end
    return ids + list(prompt.token_ids[at:]), words + list(word_of_token[at:])
