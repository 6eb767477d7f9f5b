"""Settings reach the parts that they are for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from afa_llm import assembly, engine_assembly
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
    service: Any = SimpleNamespace(fleet=None)  # an engine adds a token to what it reads
    infiller = build_infiller(config, material, SimpleNamespace(), World(0, 1, None), service)  # type: ignore[arg-type]
    assert infiller is not None
    assert infiller.longest == (max_tokens if longest is None else positions + longest - 1)


def test_engines_have_room_for_the_longest_answer_of_any_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured through an engine, every template's answers are asked about, not only those of training."""
    config = load_config(
        None, ["rollouts.backend=vllm_server", "masking.view=delete", "evaluation.through_engine=true"]
    )
    short, long = (AnswerWords(("bad", "good"), ((4,), ids)) for ids in ((5,), (5, 6, 7, 8)))
    builders = {"train": SimpleNamespace(answer_words=short), "other": SimpleNamespace(answer_words=long)}
    prompts = [SimpleNamespace(token_ids=(1, 2))]
    material: Any = SimpleNamespace(builders=builders, answers=short, train_prompts=prompts)
    text = SimpleNamespace(max_position_embeddings=9000)
    inner = SimpleNamespace(get_text_config=lambda: text)
    peft = {"default": SimpleNamespace(r=8, target_modules={"q_proj"})}
    decoder: Any = SimpleNamespace(model=SimpleNamespace(config=inner, peft_config=peft), device=torch.device("cpu"))
    rooms: list[int] = []

    def build(config: Any, decoder: Any, engine: Any, world: Any, folder: Path, *others: Any) -> None:
        rooms.append(engine_assembly._launch(config, decoder, folder, others[1], 0).max_tokens)

    monkeypatch.setattr(assembly, "build_service", build)
    with assembly.engines(config, material, decoder, None, World(0, 1, None), tmp_path):  # type: ignore[arg-type]
        pass
    assert rooms == [config.data.max_tokens + 4 + 1]


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
