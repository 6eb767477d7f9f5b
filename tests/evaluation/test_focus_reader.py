"""What is read of fixed prompts: focus, value-weighted focus, and answers with words hidden."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import save_tiny_model

from afa_llm.config_running import Model
from afa_llm.data.batching import collate
from afa_llm.data.planted import planted_examples
from afa_llm.data.prompts import PromptBuilder
from afa_llm.data.templates import load_templates
from afa_llm.evaluation.focus_reader import FocusReader
from afa_llm.method.masked_views import clean_view
from afa_llm.models.adapters import load_base, load_tokenizer
from afa_llm.models.decoder import Decoder

LABELS = ("negative", "positive")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> FocusReader:
    folder = save_tiny_model(Path(tmp_path_factory.mktemp("tiny")))
    settings = Model(path=str(folder), quantization="none", dtype="float32")
    tokenizer = load_tokenizer(settings)
    template = load_templates("builtin:sentiment", ["review_sentiment"], LABELS)["review_sentiment"]
    builder = PromptBuilder(tokenizer, template, LABELS)
    prompts = [builder.build(example) for example in planted_examples("train", 7, 0)]
    decoder = Decoder(load_base(settings, torch.device("cpu")), (0, 2), tokenizer.pad_token_id)
    return FocusReader(decoder, builder.answer_words, prompts, batch_size=3)


def test_the_value_weighted_focus_is_attention_times_the_length_of_values(reader: FocusReader) -> None:
    """Written out head by head for each prompt alone, so that padding and batches are seen to change nothing."""
    found = reader.focus_and_value_weighted()
    for prompt, (raw_W, weighted_W) in zip(reader.prompts, found, strict=True):
        rows, norms = reader.decoder.read_rows_and_value_norms(clean_view(collate([prompt], 0)))
        masses = np.zeros((2, len(prompt.example.words)))
        for layer in range(2):
            for head in range(4):
                for token, word in enumerate(prompt.word_of_token):
                    if word >= 0:
                        attention = float(rows[layer, 0, head, token])
                        masses[0, word] += attention
                        masses[1, word] += attention * float(norms[layer, 0, head, token])
        expected_raw, expected_weighted = masses / masses.sum(axis=1, keepdims=True)
        assert raw_W == pytest.approx(expected_raw, abs=1e-6)
        assert weighted_W == pytest.approx(expected_weighted, abs=1e-6)
        assert np.abs(raw_W - weighted_W).max() > 1e-3  # they do differ
    assert all((a == b).all() for a, (b, _) in zip(reader.focus(), found, strict=True))


def test_focus_by_layer_is_that_of_each_layer_alone(reader: FocusReader) -> None:
    found = reader.focus_by_layer()
    for place, layer in enumerate(reader.decoder.layers):
        alone = copy(reader.decoder)
        alone.layers = (layer,)
        expected = FocusReader(alone, reader.answers, reader.prompts, batch_size=7).focus()
        for each_LW, expected_W in zip(found, expected, strict=True):
            assert each_LW[place] == pytest.approx(expected_W, abs=1e-6)
    assert np.abs(found[0][0] - found[0][1]).max() > 1e-3  # the layers do differ


def test_what_is_hidden_can_not_matter(reader: FocusReader) -> None:
    """With every word hidden, other words in the same places give the same answers."""
    garbled = [
        replace(p, token_ids=tuple(50 if w >= 0 else t for t, w in zip(p.token_ids, p.word_of_token, strict=True)))
        for p in reader.prompts
    ]
    other = FocusReader(reader.decoder, reader.answers, garbled, batch_size=3)
    everything = [frozenset(range(len(prompt.example.words))) for prompt in reader.prompts]
    nothing: list[frozenset[int]] = [frozenset()] * 7
    assert np.abs(reader(range(7), everything) - other(range(7), everything)).max() < 1e-5
    assert np.abs(reader(range(7), nothing) - other(range(7), nothing)).max() > 1e-2
