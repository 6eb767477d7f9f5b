"""Passes of the real decoder, adapter and attention capture on the meta device: what they would allocate.

Nothing is computed and nothing is allocated; a pass of 80 layers takes seconds. Prompts are taken at their longest. A
label of several tokens multiplies the rows of a pass by the number of labels.

Measured against the same passes on a processor (tests/planning/test_dry_run.py): bytes saved for backward are equal,
peaks agree to 1 percent.

Legend: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from afa_llm.errors import AfaError
from afa_llm.models.attention_capture import RowRequest
from afa_llm.models.decoder import Decoder
from afa_llm.planning.live_bytes import LiveBytes, module_storages
from afa_llm.planning.stand_ins import attention_stand_in, autocast_stand_in, experts_stand_in
from afa_llm.records import AnswerWords, View

ANSWERS = AnswerWords(("no", "yes"), ((0,), (1,)))


@dataclass(frozen=True)
class PassBytes:
    """Bytes beside weights and gradients: `kept` from the end of the forward to backward, `peak` over all."""

    kept: int
    peak: int


def training_pass(
    model: nn.Module, layers: tuple[int, ...], rows: int, tokens: int, answers: AnswerWords = ANSWERS
) -> PassBytes:
    """Forward and backward of a micro-batch. Raises AfaError where the family cannot run without its weights."""
    model.train()
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    with _counting(model) as live:
        reading = _Unmasked(model, layers, pad_token_id=0).read(_view(rows, tokens), answers)
        loss = reading.label_logprob_BC.sum() + reading.rows_LBHT.sum()
        del reading
        kept = live.live
        loss.backward()
    return PassBytes(kept, live.peak)


def reading_pass(
    model: nn.Module, layers: tuple[int, ...], rows: int, tokens: int, answers: AnswerWords = ANSWERS
) -> PassBytes:
    """A pass without gradient, as masked views and measurements take it."""
    model.eval()
    with _counting(model) as live, torch.no_grad():
        reading = _Unmasked(model, layers, pad_token_id=0).read(_view(rows, tokens), answers)
        kept = live.live
        del reading
    return PassBytes(kept, live.peak)


@contextmanager
def _counting(model: nn.Module) -> Iterator[LiveBytes]:
    """Counts with the stand-ins in place; one message where a pass cannot run on the meta device."""
    live = LiveBytes(module_storages(model))
    try:
        with live, attention_stand_in(), autocast_stand_in(), experts_stand_in():
            yield live
    # What torch raises where an operator has no meta kernel, or a family asks a tensor for its numbers, as routing by
    # `.item()` or `.tolist()` does. Other errors are ours and stay tracebacks.
    except (RuntimeError, TypeError, ValueError) as error:
        family = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise AfaError(
            f"model.path: a pass of model type {family} cannot be planned without its weights ({reason}); run a few "
            "steps (training.max_steps=3) instead and read peak_memory_gib in metrics.jsonl"
        ) from error


class _Unmasked(Decoder):
    """Passes on the mask that transformers would make of the padding: it would look at the numbers."""

    def _call(self, view: View, request: RowRequest, keep: int) -> torch.Tensor:
        rows, tokens = view.input_ids_BT.shape
        mask = torch.zeros(rows, 1, tokens, tokens, dtype=torch.bool, device="meta")
        return super()._call(replace(view, attention_mask_BT=mask), request, keep)


def _view(rows: int, tokens: int) -> View:
    """Padded prompts as a decoder gets them."""
    ids_BT = torch.zeros(rows, tokens, dtype=torch.long, device="meta")
    return View(
        input_ids_BT=ids_BT,
        attention_mask_BT=ids_BT,
        position_BT=ids_BT,
        word_of_token_BT=ids_BT,
        word_mask_BW=torch.zeros(rows, 1, dtype=torch.bool, device="meta"),
    )
