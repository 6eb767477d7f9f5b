"""Work and memory that a pass of the decoder does without.

Legend: L layers, B rows, H query heads, T tokens.
"""

from __future__ import annotations

import gc
import weakref

import pytest
from tiny_models import DEPTH, make_view, tiny_model

from afa_llm.models.attention_capture import RowRequest
from afa_llm.models.decoder import Decoder
from afa_llm.records import AnswerWords, View

ROWS = 2e-6  # worst case, float32: 4.5e-7
SINGLE = AnswerWords(("bad", "good", "so-so"), ((5,), (6,), (250,)))
SEVERAL = AnswerWords(("bad", "very good", "so so la"), ((5,), (6, 7), (250, 9, 11)))


def make_decoder(layers: tuple[int, ...] = (0, 2)) -> Decoder:
    return Decoder(tiny_model("llama"), layers, 0)


def test_logits_are_computed_at_kept_positions_only() -> None:
    decoder, view = make_decoder(), make_view([17, 9])
    seen: list[tuple[int, ...]] = []
    decoder.model.get_output_embeddings().register_forward_pre_hook(lambda _, x: seen.append(tuple(x[0].shape)))
    decoder.read(view, SINGLE)
    decoder.read(view, SEVERAL)
    assert seen == [(2, 1, 64), (2 * 3, 3, 64)]


@pytest.mark.parametrize(("layers", "entered"), [((0,), [0]), ((0, 1), [0, 1]), ((1, 2), [0, 1, 2])])
def test_rows_alone_end_the_pass_early_and_are_the_same(layers: tuple[int, ...], entered: list[int]) -> None:
    decoder, view = make_decoder(layers=layers), make_view([17, 9])
    expected = decoder.read(view, SINGLE).rows_LBHT
    seen: list[int] = []
    for index, layer in enumerate(decoder.model.model.layers):
        layer.register_forward_pre_hook(lambda *_, index=index: seen.append(index))
    found = decoder.read_rows(view)
    assert (found - expected).abs().max() < ROWS
    assert seen == entered
    assert not found.requires_grad
    decoder.may_stop_early = False
    assert (decoder.read_rows(view) - expected).abs().max() < ROWS
    assert seen == [*entered, *range(DEPTH)]


@pytest.mark.parametrize("value_norms", [False, True])
def test_a_pass_under_checkpointing_is_freed_with_its_reading(value_norms: bool) -> None:
    """Recomputation keeps the request; a request that keeps rows, which keep the graph, would never go (a GPU filled
    up by 3 GiB a step). Rows that nothing learns from are the hard case: their part of the graph is never walked."""
    decoder, view, kept = make_decoder(), make_view([9, 6]), []
    decoder.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    decoder.model.train()
    make_request = decoder._request

    def remembered(view: View, position: int | None = None, stop_after: int | None = None) -> RowRequest:
        request = make_request(view, position, stop_after)
        request.value_norms = value_norms
        kept.append(weakref.ref(request))
        return request

    decoder._request = remembered  # type: ignore[method-assign]
    reading = decoder.read(view, SINGLE)
    assert reading.rows_LBHT.requires_grad
    (-reading.label_logprob_BC[:, 0].sum()).backward()
    del reading
    gc.collect()
    assert len(kept) == 1 and kept[0]() is None
