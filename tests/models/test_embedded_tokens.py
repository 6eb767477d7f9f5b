"""Tokens that a tokenizer has and its model has not: told before the model is loaded, harmless under padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from saved_models import ANSWERS, save_model, settings
from tiny_models import VOCABULARY, tiny_model

from afa_llm.data.batching import collate
from afa_llm.errors import AfaError
from afa_llm.method.masked_views import clean_view
from afa_llm.models.decoder import Decoder
from afa_llm.models.embedded_tokens import check_embedded
from afa_llm.records import AnswerWords, Example, Prompt


def prompt(*token_ids: int) -> Prompt:
    return Prompt(Example(f"r/{token_ids[0]}", "w3", 0, ((0, 2),)), token_ids, (-1, *[0] * (len(token_ids) - 1)))


def test_a_token_past_the_embeddings(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path))
    last = VOCABULARY - 1
    check_embedded(model, [prompt(3, last)], [ANSWERS])
    with pytest.raises(AfaError, match=r"token 300 \(prompt of r/4\), .*vocab_size = 300; put .* or resize"):
        check_embedded(model, [prompt(3, last), prompt(4, last + 1, 5)], [ANSWERS])
    with pytest.raises(AfaError, match=r"token 301 \(answer of label 'good'\)"):
        check_embedded(model, [], [AnswerWords(("bad", "good"), ((5,), (6, last + 2)))])


def test_padding_with_a_token_past_the_embeddings() -> None:
    model, several = tiny_model("llama"), AnswerWords(("bad", "good"), ((5,), (6, 7)))
    outside, usual = Decoder(model, (1,), VOCABULARY + 7), Decoder(model, (1,), 2)
    assert (outside.pad_token_id, usual.pad_token_id) == (0, 2)
    for answers in (ANSWERS, several):
        found = [
            decoder.read(clean_view(collate([prompt(3, 4, 5, 6), prompt(7, 8)], decoder.pad_token_id)), answers)
            for decoder in (outside, usual)
        ]
        assert torch.equal(found[0].label_logprob_BC, found[1].label_logprob_BC)
