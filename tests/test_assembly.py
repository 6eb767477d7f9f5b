"""Settings reach the parts that they are for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from afa_llm.assembly import build_delivery, build_infiller
from afa_llm.config_loading import load_config
from afa_llm.models.adapters import load_tokenizer
from afa_llm.models.positions import most_positions
from afa_llm.records import AnswerWords
from afa_llm.training.distributed import World


@pytest.mark.parametrize(
    ("max_tokens", "answer", "longest"), [(9000, (5,), 0), (9000, (5, 6, 7), -2), (300, (5,), None)]
)
def test_other_words_stay_within_the_models_positions(max_tokens: int, answer: tuple[int, ...], longest: Any) -> None:
    """A filled prompt may be longer than the one that was checked before the run."""
    config = load_config(None, ["masking.view=infill", f"data.max_tokens={max_tokens}"])
    answers = AnswerWords(("bad", "good"), ((4,), answer))
    material: Any = SimpleNamespace(tokenizer=load_tokenizer(config.model), answers=answers)
    infiller = build_infiller(config, material, SimpleNamespace(), World(0, 1, None), None)  # type: ignore[arg-type]
    positions = most_positions(config.model)
    assert infiller is not None and positions is not None and positions < 9000
    assert infiller.longest == (max_tokens if longest is None else positions + longest)


@pytest.mark.parametrize(
    ("settings", "delivers"),
    [
        (["rollouts.reader=tuned"], True),
        (["rollouts.reader=base"], False),  # nobody asks the engines for the adapter
        (["rollouts.reader=tuned", "objective.policy_gradient_weight=0"], False),
    ],
)
def test_the_adapter_goes_to_the_engines_where_rounds_ask_for_it(settings: list[str], delivers: bool) -> None:
    config = load_config(None, ["rollouts.backend=vllm_server", "masking.view=delete", *settings])
    service: Any = SimpleNamespace(deliver=lambda version: {})
    assert build_delivery(config, service) == (service.deliver if delivers else None)
    assert build_delivery(config, None) is None
