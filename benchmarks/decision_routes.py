"""Which attention carries the decision: accuracy with some queries cut off from the review.

    python benchmarks/decision_routes.py CONFIG [--adapter runs/x/adapter ...] [section.key=value ...]

The focus is one row of attention, that of the readout position. It is worth moving only if the answer comes through it.
So the reviews of the first evaluation set are answered again with these taken away, in every layer:

    readout    the readout position no longer sees the review (what it knows comes from other tokens of the template)
    template   the template's tokens after the review, without the readout position, no longer see it
    context    the review's words no longer see each other (each sees its own tokens and what stands before the review)

Prints one line a model, in percent: the base, then each adapter.

Legend: B reviews, T tokens, Q query, K key (both T).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from afa_llm import assembly
from afa_llm.config_loading import load_config
from afa_llm.data.batching import collate
from afa_llm.material import Material, prepare
from afa_llm.method.masked_views import clean_view
from afa_llm.models.decoder import Decoder
from afa_llm.records import Prompt, View

ROUTES = ("nothing", "readout", "template", "context", "template and context")


def seen_keys(view: View, route: str) -> torch.Tensor:
    """Which key each query may see, [B, Q, K], with `route` taken away."""
    word_BT = view.word_of_token_BT
    T = word_BT.shape[1]
    at_T = torch.arange(T)
    is_word_BT = word_BT >= 0
    after_BT = at_T > (at_T * is_word_BT).amax(1, keepdim=True)
    last_T = at_T == T - 1
    cut_BT = torch.zeros_like(is_word_BT)
    if route == "readout":
        cut_BT = last_T.expand_as(cut_BT)
    if "template" in route:
        cut_BT = cut_BT | (after_BT & ~last_T)
    if "context" in route:
        cut_BT = cut_BT | is_word_BT
    own_BQK = (word_BT[:, :, None] == word_BT[:, None, :]) & is_word_BT[:, None, :]
    seen_BQK = (at_T[:, None] >= at_T[None, :]) & view.attention_mask_BT[:, None, :].bool()
    seen_BQK = seen_BQK & ~(cut_BT[:, :, None] & is_word_BT[:, None, :] & ~own_BQK)
    return seen_BQK | torch.eye(T, dtype=torch.bool)  # padding sees itself: a row of nothing would be NaN


def accuracy(decoder: Decoder, prompts: Sequence[Prompt], material: Material, route: str, rows: int) -> float:
    """Share of prompts whose label gets the highest answer."""
    right = 0
    for start in range(0, len(prompts), rows):
        batch = collate(prompts[start : start + rows], decoder.pad_token_id)
        view = clean_view(batch)
        seen_B1QK = seen_keys(view, route)[:, None]
        mask_B1QK = torch.zeros(seen_B1QK.shape).masked_fill(~seen_B1QK, torch.finfo(torch.float32).min)
        with decoder.answering():
            answers_BC = decoder.read(replace(view, attention_mask_BT=mask_B1QK), material.answers).label_logprob_BC
        right += int((answers_BC.argmax(-1) == batch.label_B).sum())
    return right / len(prompts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--adapter", type=Path, action="append", default=[])
    given = parser.parse_intermixed_args()
    config = load_config(given.config, ["model.dtype=float32", *given.overrides])
    material = prepare(config)
    prompts = next(iter(material.prompt_sets.values()))[0].prompts
    print(f"{len(prompts)} reviews; taken away: {', '.join(ROUTES)}")
    for adapter in [None, *given.adapter]:
        decoder = assembly.build_decoder(config, material, torch.device("cpu"), adapter)
        found = [100 * accuracy(decoder, prompts, material, route, config.evaluation.batch_size) for route in ROUTES]
        print(f"{adapter or 'base'}: " + "  ".join(f"{share:.1f}" for share in found), flush=True)


if __name__ == "__main__":
    main()
