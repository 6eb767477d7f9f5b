"""Which layers a run reads: the base is asked where it is deep; kept over resumes, shared by a benchmark's runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from afa_llm import run_layers
from afa_llm.assembly import build_decoder
from afa_llm.config import Config
from afa_llm.config_loading import dump_config, load_config
from afa_llm.data.words import split_words
from afa_llm.evaluation.estimates import Floats
from afa_llm.evaluation.layer_focus import answer_shifts, best_band
from afa_llm.material import Material, prepare
from afa_llm.models.decoder import Decoder, choose_layers
from afa_llm.records import Example, Prompt
from afa_llm.run_folder import changed_settings
from afa_llm.run_layers import QUESTIONS, WORDS, questions, settle_layers
from afa_llm.training.distributed import World

MEASURED = "data.evaluation=[{path: 'builtin:planted', split: test, max_samples: 4}]"
WORLD = World(0, 1, torch.device("cpu"))


def settings(model: Path, *more: str) -> Config:
    data = ["data.train.max_samples=12", "data.evaluation=[]", "model.dtype=float32", "model.quantization=none"]
    return load_config(None, [f"model.path={model}", *data, *more])


@functools.cache
def decoder_of(model: str) -> Decoder:
    config = settings(Path(model))
    return build_decoder(config, prepare(config), WORLD.device)


def settled(config: Config, world: World = WORLD) -> tuple[Config, Decoder]:
    decoder = decoder_of(config.model.path)
    depth = decoder.model.config.num_hidden_layers
    decoder.layers = choose_layers(config.attention.layers, depth)  # as build_decoder does
    return settle_layers(config, prepare(config), decoder, world), decoder


@pytest.fixture
def no_passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forward(*arguments: object, **named: object) -> None:
        raise AssertionError("the base is asked")

    return lambda: monkeypatch.setattr(Decoder, "_call", forward)


class Knowing:
    """Stands in for FocusReader: word 0 of each review decides, and only layers 4 to 6 look at it."""

    moves = 0.4
    most = 0

    def __init__(self, decoder: Decoder, answers: object, prompts: Sequence[Prompt], *rest: object) -> None:
        self.depth, self.prompts = len(decoder.layers), prompts

    def focus_by_layer(self) -> list[Floats]:
        found = []
        for prompt in self.prompts:
            focus_LW = np.full((self.depth, len(prompt.example.words)), 1 / len(prompt.example.words))
            focus_LW[4:7] = 0
            focus_LW[4:7, 0] = 1
            found.append(focus_LW)
        return found

    def __call__(self, reviews: Sequence[int], hidden: Sequence[frozenset[int]]) -> Floats:
        type(self).most = max(reviews.count(review) for review in reviews)
        return np.log([[0.5 + self.moves * (0 not in words), 0.5 - self.moves * (0 not in words)] for words in hidden])


def test_the_layers_that_know_are_read(
    deep_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_layers, "FocusReader", Knowing)
    config, decoder = settled(settings(deep_model))
    assert config.attention.layers == decoder.layers == (4, 5, 6)
    assert "layers 4 to 6 of 12" in capsys.readouterr().err


def test_of_a_long_review_some_words_are_hidden(deep_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_layers, "FocusReader", Knowing)
    monkeypatch.setattr(run_layers, "WORDS", 3)
    settled(settings(deep_model))
    assert Knowing.most == 1 + 3  # as it is, and with each of three words hidden


def test_where_no_answer_moves_all_are_read(
    deep_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_layers, "FocusReader", Knowing)
    monkeypatch.setattr(Knowing, "moves", 0.0)
    config, decoder = settled(settings(deep_model))
    assert config.attention.layers == decoder.layers == tuple(range(12))
    assert "tell none from another" in capsys.readouterr().err


def test_a_real_base_is_asked_and_not_the_adapter(deep_model: Path) -> None:
    config = settings(deep_model)
    material = prepare(config)
    decoder = build_decoder(config, material, WORLD.device)
    for name, weight in decoder.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=2.0)
    layers = settle_layers(config, material, decoder, WORLD).attention.layers
    assert decoder.layers == layers

    fresh = build_decoder(config, material, WORLD.device)
    prompts = material.train_prompts
    reader = run_layers.FocusReader(fresh, material.answers, prompts, 8)
    examples = [prompt.example for prompt in prompts]
    shift_NW = answer_shifts([len(example.words) for example in examples], reader, WORDS, 0)
    best, _ = best_band(examples, reader.focus_by_layer(), shift_NW)
    assert layers == tuple(range(best.first, best.last + 1))
    assert len(layers) < 12


@pytest.mark.parametrize(
    ("model", "more", "layers"),
    [
        ("tiny_model", [], (0, 1, 2)),
        ("deep_model", ["attention.layers=[3,-1]"], (3, 11)),
        ("deep_model", ["attention.layers=all"], tuple(range(12))),
        ("deep_model", ["objective.policy_gradient_weight=0"], tuple(range(12))),
        (
            "deep_model",
            ["objective.policy_gradient_weight=0", MEASURED, "evaluation.focus_samples=0"],
            tuple(range(12)),
        ),
    ],
)
def test_nothing_is_asked_where_nothing_is_to_choose(
    model: str, more: list[str], layers: tuple[int, ...], no_passes: Callable[[], None], request: pytest.FixtureRequest
) -> None:
    no_passes()
    _, decoder = settled(settings(request.getfixturevalue(model), *more))
    assert decoder.layers == layers


@pytest.mark.parametrize("more", [["objective.policy_gradient_weight=0", MEASURED], []])
def test_measuring_or_feedback_alone_need_the_layers(deep_model: Path, more: list[str]) -> None:
    asked = settled(settings(deep_model, *more))[1].layers
    assert asked == settled(settings(deep_model))[1].layers != tuple(range(12))


@pytest.mark.parametrize(("begun", "layers"), [("[2,7]", (2, 7)), ("last_third", (8, 9, 10, 11))])
def test_a_resumed_run_keeps_its_layers(
    deep_model: Path, tmp_path: Path, no_passes: Callable[[], None], begun: str, layers: tuple[int, ...]
) -> None:
    place = [f"run.output_dir={tmp_path}", "run.name=begun"]
    (tmp_path / "begun").mkdir()
    started = settings(deep_model, *place, f"attention.layers={begun}")
    (tmp_path / "begun" / "config.yaml").write_text(dump_config(started))
    no_passes()
    resumed = settings(deep_model, *place, "run.resume=true")
    config, decoder = settled(resumed)
    assert config.attention.layers == decoder.layers == layers
    assert changed_settings(tmp_path / "begun", resumed) == []
    (change,) = changed_settings(
        tmp_path / "begun", settings(deep_model, *place, "run.resume=true", "attention.layers=all")
    )
    assert change.startswith("attention.layers = all (was ")


def test_a_run_that_replaces_another_chooses(deep_model: Path, tmp_path: Path, no_passes: Callable[[], None]) -> None:
    place = [f"run.output_dir={tmp_path}", "run.name=begun"]
    (tmp_path / "begun").mkdir()
    begun = settings(deep_model, *place, "attention.layers=[2,7]")
    (tmp_path / "begun" / "config.yaml").write_text(dump_config(begun))
    no_passes()
    with pytest.raises(AssertionError, match="the base is asked"):
        settled(settings(deep_model, *place, "run.overwrite=true"))


def test_a_run_stopped_before_it_chose_chooses(deep_model: Path, tmp_path: Path) -> None:
    place = [f"run.output_dir={tmp_path}", "run.name=begun"]
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text(dump_config(settings(deep_model, *place)))
    resumed, _ = settled(settings(deep_model, *place, "run.resume=true"))
    assert resumed.attention.layers == settled(settings(deep_model))[0].attention.layers


def test_runs_of_a_benchmark_ask_once(
    deep_model: Path, tmp_path: Path, no_passes: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    shared = [f"evaluation.before_folder={tmp_path}", "data.train.max_samples=null"]
    config = settings(deep_model, *shared)
    layers = settled(config)[1].layers
    no_passes()
    other = settings(deep_model, *shared, "run.seed=3", "objective.policy_gradient_weight=0", MEASURED)
    assert settled(other)[1].layers == layers
    assert settled(config)[1].layers == layers
    assert "another run of the same base" in capsys.readouterr().err
    for more in ("prompts.train=overall_it_was", "data.train.split=validation"):
        with pytest.raises(AssertionError, match="the base is asked"):
            settled(settings(deep_model, *shared, more))


@pytest.mark.parametrize("text", ["", "[]", "[1, 12]", '["x"]', "{}", "null", "3"])
def test_what_is_kept_and_broken_is_asked_anew(deep_model: Path, tmp_path: Path, text: str) -> None:
    config = settings(deep_model, f"evaluation.before_folder={tmp_path}")
    layers = settled(config)[1].layers
    (kept,) = tmp_path.glob("layers-*.json")
    kept.write_text(text)
    assert settled(config)[1].layers == layers
    assert json.loads(kept.read_text()) == list(layers)


def test_of_two_runs_that_ask_at_once_the_first_to_end_counts(
    deep_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Knowing):
        """While it asks, another run keeps what it found."""

        def focus_by_layer(self) -> list[Floats]:
            (tmp_path / name).write_text("[7]")
            return super().focus_by_layer()

    monkeypatch.setattr(run_layers, "FocusReader", Knowing)
    config = settings(deep_model, f"evaluation.before_folder={tmp_path}")
    assert settled(config)[1].layers == (4, 5, 6)
    (kept,) = tmp_path.glob("layers-*.json")
    name = kept.name
    kept.unlink()
    monkeypatch.setattr(run_layers, "FocusReader", Slow)
    assert settled(config)[1].layers == (7,)
    assert json.loads(kept.read_text()) == [7]


class Follower(World):
    """Rank 1 of two, whose leader settled on layers 1 and 2."""

    def from_leader(self, item: object) -> object:
        return ((1, 2), "") if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], str) else None

    def gather(self, item: object) -> list[object]:
        return [item] * 2


def test_the_leader_decides(deep_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_layers, "FocusReader", Knowing)
    assert settled(settings(deep_model), Follower(1, 2, torch.device("cpu")))[1].layers == (1, 2)


def prompt(words: int, name: str) -> Prompt:
    text = " ".join(["word"] * words)
    example = Example(name, text, 0, split_words(text))
    return Prompt(example, (), ())


def test_questions_are_spread_and_bounded() -> None:
    many = [prompt(20, str(index)) for index in range(5000)]
    asked = [int(each.example.example_id) for each in questions(many)]
    assert len(asked) == len(set(asked)) == QUESTIONS // 20
    gaps = np.diff([0, *sorted(asked), 5000])
    assert gaps.max() < 2.7 * 5000 / len(asked)  # an even share, times the golden ratio squared
    assert len(questions([prompt(200, str(index)) for index in range(500)])) == QUESTIONS // WORDS
    few = [prompt(1, "a"), prompt(2, "b"), prompt(3, "c")]
    assert {each.example.example_id for each in questions(few)} == {"b", "c"}


def test_one_review_chooses_nothing(deep_model: Path, no_passes: Callable[[], None]) -> None:
    config = settings(deep_model)
    material = prepare(config)
    decoder = build_decoder(config, material, WORLD.device)
    no_passes()
    one = Material(**{**vars(material), "train_prompts": material.train_prompts[:1]})
    assert settle_layers(config, one, decoder, WORLD).attention.layers == tuple(range(12))
