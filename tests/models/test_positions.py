"""Prompts that are longer than the model can read are told before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from saved_models import ANSWERS, save_model, settings

from afa_llm.errors import AfaError
from afa_llm.models.positions import check_positions, most_positions
from afa_llm.records import AnswerWords, Example, Prompt


def prompt(length: int) -> Prompt:
    return Prompt(Example(f"r/{length}", "w3", 0, ((0, 2),)), (3,) * length, (0,) * length)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_prompt_beyond_the_last_position(tmp_path: Path, family: str) -> None:
    model = settings(save_model(tmp_path, family, max_position_embeddings=64))
    assert most_positions(model) == 64
    check_positions(model, [prompt(64), prompt(3)], [ANSWERS])
    with pytest.raises(AfaError, match=r"r/65: a prompt of 65 tokens, .* can read 64 .*set data.max_tokens=64"):
        check_positions(model, [prompt(3), prompt(65)], [ANSWERS])
    three = AnswerWords(("bad", "good"), ((5,), (6, 7, 8)))
    check_positions(model, [prompt(62)], [three])
    with pytest.raises(AfaError, match=r"set data.max_tokens=62"):
        check_positions(model, [prompt(63)], [ANSWERS, three])
    check_positions(model, [], [ANSWERS])


def test_an_engine_needs_a_place_for_the_token_that_it_adds(tmp_path: Path) -> None:
    """vLLM refuses a prompt as long as the model's positions, in the middle of a run."""
    model = settings(save_model(tmp_path, "gpt2", max_position_embeddings=64))
    check_positions(model, [prompt(63)], [ANSWERS], engine=True)
    with pytest.raises(
        AfaError, match=r"can read 63 beside the answer and the token that an engine adds; set data.max_"
    ):
        check_positions(model, [prompt(64)], [ANSWERS], engine=True)


def test_without_a_limit_anything_fits(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 0}))
    check_positions(model, [prompt(5000)], [ANSWERS])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AfaError, match=r"model.path = .*cannot be loaded"):
        most_positions(model)


def test_an_answer_longer_than_the_model_can_read(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path, "gpt2", max_position_embeddings=64))
    long = AnswerWords(("bad", "good"), ((5,), (6,) * 250))
    for answers in ([ANSWERS, long], [long, ANSWERS]):
        with pytest.raises(AfaError, match=r"answer of label 'good' has 250 tokens, .* can read 64: .*shorter answer"):
            check_positions(model, [prompt(3)], answers)
    with pytest.raises(AfaError, match="has 58 tokens"):
        check_positions(model, [prompt(3)], [AnswerWords(("bad", "good"), ((5,) * 58, (6,)))])
    check_positions(model, [prompt(8)], [AnswerWords(("bad", "good"), ((5,) * 57, (6,)))])
