"""What `afa inspect`, `afa evaluate` and a run refuse before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from afa_llm import jobs
from afa_llm.config_loading import load_config
from afa_llm.errors import AfaError


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*arguments: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("afa_llm.assembly.build_decoder", load)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", "  "], "text 2: the review has no words"),
        (["fine film " * 200], r"text 1: \d+ tokens, over data.max_tokens = 64"),
    ],
)
def test_texts_that_cannot_be_inspected(tiny_model: Path, texts: list[str], message: str) -> None:
    config = load_config(None, [f"model.path={tiny_model}", "data.max_tokens=64"])
    with pytest.raises(AfaError, match=message):
        jobs.inspect(config, texts, None, Console())


@pytest.mark.usefixtures("no_model")
def test_an_adapter_that_is_not_there(tiny_model: Path, tmp_path: Path) -> None:
    config = load_config(None, [f"model.path={tiny_model}", f"run.output_dir={tmp_path}"])
    for job in (
        lambda: jobs.evaluate(config, tmp_path / "adapter"),
        lambda: jobs.inspect(config, ["fine"], tmp_path / "adapter", Console()),
        lambda: jobs.layers(config, 10, tmp_path / "adapter", Console()),
    ):
        with pytest.raises(AfaError, match="no adapter here"):
            job()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_model")
def test_nothing_to_measure_on(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"model.path={tiny_model}", f"run.output_dir={tmp_path}", "data.evaluation=[]"]
    with pytest.raises(AfaError, match=r"data.evaluation = \[\]: there is nothing to measure on"):
        jobs.evaluate(load_config(None, settings), None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AssertionError, match="a model is loaded"):  # training alone may be wanted
        jobs.train(load_config(None, settings))
    assert "data.evaluation = []: nothing is measured, before training or after" in capsys.readouterr().err


@pytest.mark.usefixtures("no_model")
def test_behavioural_cases_without_a_base_are_told_before_anything_is_measured(
    tiny_model: Path, tmp_path: Path
) -> None:
    row = {"text": "a fine film", "label": 1, "g": "INV names", "p": 1, "s": "original"}
    (tmp_path / "r.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps({**row, 's': 'edited'})}\n")
    source = f"{{path: {tmp_path / 'r.jsonl'}, group_column: g, pair_column: p, side_column: s}}"
    settings = [f"model.path={tiny_model}", f"run.output_dir={tmp_path / 'runs'}", f"data.evaluation=[{source}]"]
    for job in (
        lambda: jobs.train(load_config(None, settings)),
        lambda: jobs.evaluate(load_config(None, settings), None),
    ):
        with pytest.raises(AfaError, match="r, case '1' of test 'INV names': wants one review"):
            job()


@pytest.mark.usefixtures("no_model")
def test_pairs_that_a_suite_lacks_are_told(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cebab").mkdir()
    (tmp_path / "cebab" / "test.jsonl").write_text('{"text": "a fine film", "label": 1}\n')
    settings = [f"model.path={tiny_model}", f"run.output_dir={tmp_path / 'runs'}", f"data.suites_dir={tmp_path}"]
    config = load_config(None, [*settings, "data.evaluation=[{path: 'suite:cebab', split: test}]"])
    for job in (lambda: jobs.train(config), lambda: jobs.evaluate(config, None)):
        with pytest.raises(AssertionError, match="a model is loaded"):
            job()
        assert "cebab_test: no pairs are measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "layers", "told"),
    [("deep_model", "auto", True), ("deep_model", "last_half", False), ("tiny_model", "auto", False)],
)
def test_inspect_says_that_it_shows_all_layers_of_a_deep_model(
    model: str, layers: str, told: bool, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"model.path={request.getfixturevalue(model)}", "model.quantization=none", f"attention.layers={layers}"]
    jobs.inspect(load_config(None, settings), ["a fine film"], None, Console())
    assert ("all 12 layers are shown" in capsys.readouterr().err) == told


@pytest.mark.usefixtures("no_model")
def test_jobs_that_ask_no_engine_need_none(tiny_model: Path, tmp_path: Path) -> None:
    """A run trained beside vLLM is looked at on machines without it, and `inspect --run` takes no other settings."""
    engine = [f"rollouts.vllm_python={tmp_path}/python", "rollouts.backend=vllm_server", "masking.view=delete"]
    settings = [f"model.path={tiny_model}", f"run.output_dir={tmp_path}", "data.train.max_samples=20", *engine]
    config = load_config(None, settings)
    gone = load_config(None, [*settings, f"evaluation.lexicon={tmp_path}/gone.txt"])
    for job in (
        lambda: jobs.inspect(gone, ["fine"], None, Console()),
        lambda: jobs.layers(config, 10, None, Console()),
        lambda: jobs.evaluate(config, None),
    ):
        with pytest.raises(AssertionError, match="a model is loaded"):
            job()
    for asks in (
        lambda: jobs.train(config),
        lambda: jobs.evaluate(load_config(None, [*settings, "evaluation.through_engine=true"]), None),
    ):
        with pytest.raises(AfaError, match="has no vLLM"):
            asks()


@pytest.mark.usefixtures("no_model")
def test_jobs_that_train_nothing_take_reviews_that_nothing_can_be_learned_from(
    tiny_model: Path, tmp_path: Path
) -> None:
    """A few reviews for `afa layers` are soon of one class, and shorter than the masks of a training are many."""
    (tmp_path / "r.jsonl").write_text('{"text": "fine film", "label": 1}\n{"text": "good film", "label": 1}\n')
    settings = [f"model.path={tiny_model}", f"data.train.path={tmp_path / 'r.jsonl'}", f"run.output_dir={tmp_path}"]
    settings += ["reward.source=rationale"]
    config = load_config(None, settings)
    for job in (lambda: jobs.layers(config, 10, None, Console()), lambda: jobs.evaluate(config, None)):
        with pytest.raises(AssertionError, match="a model is loaded"):
            job()
    with pytest.raises(AfaError, match=r"masking\.masks_per_review = 4: more masks than words"):
        jobs.train(config)


@pytest.mark.usefixtures("no_model")
def test_layers_need_two_reviews_of_two_words(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"text": "fine film", "label": 1}\n{"text": "dull", "label": 0}\n')
    settings = [f"model.path={tiny_model}", f"data.train.path={tmp_path / 'r.jsonl'}"]
    settings += ["masking.masks_per_review=2"]
    with pytest.raises(AfaError, match=r"1 review\(s\) of two words or more"):
        jobs.layers(load_config(None, settings), 10, None, Console())


def test_labels_with_brackets_are_no_markup(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(
        'templates: {a: {prompt: "{review} is", answers: {"[/no]": " bad", "[red]": " good"}}}\n'
    )
    (tmp_path / "c.yaml").write_text(
        'data: {labels: {"[/no]": [0], "[red]": [1]}}\n'
        f"prompts: {{file: {tmp_path / 'p.yaml'}, train: a, evaluation: [a]}}\n"
        f"model: {{path: {tiny_model}, quantization: none}}\n"
    )
    jobs.inspect(load_config(str(tmp_path / "c.yaml")), ["a fine film"], None, Console())
    said = capsys.readouterr().out
    assert "[/no] 0." in said and "[red] 0." in said


@pytest.mark.usefixtures("no_model")
def test_evaluate_says_in_which_reviews_words_are_counted(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They were those of the configuration's data.train without a word, whatever the adapter was trained on."""
    (tmp_path / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "adapter" / name).write_text("")
    settings = [f"model.path={tiny_model}", f"run.output_dir={tmp_path / 'runs'}"]
    with pytest.raises(AssertionError, match="a model is loaded"):
        jobs.evaluate(load_config(None, settings), tmp_path / "adapter")
    assert "how rare a word is, is counted in data.train = planted_train" in capsys.readouterr().err


@pytest.mark.usefixtures("no_model")
def test_an_evaluation_of_a_base_tells_where_words_are_counted_in_packaged_reviews(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.jsonl").write_text('{"text": "a fine film", "label": 1}\n{"text": "a dull film", "label": 0}\n')
    settings = [f"model.path={tiny_model}", f"run.output_dir={tmp_path / 'runs'}"]
    own = [f"data.evaluation=[{{path: {tmp_path / 'r.jsonl'}}}]"]
    for given, told in ((own, True), ([*own, f"data.train.path={tmp_path / 'r.jsonl'}"], False), ([], False)):
        with pytest.raises(AssertionError, match="a model is loaded"):
            jobs.evaluate(load_config(None, [*settings, *given]), None)
        assert ("counted in data.train = planted_train" in capsys.readouterr().err) == told


def test_inspect_shows_no_row_of_zeros(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No word was in reach of the layers: all of them had 0.0 %, "relative to the largest"."""
    monkeypatch.setattr(jobs.FocusReader, "focus", lambda self: [np.zeros(3)])
    with pytest.raises(AfaError, match=r"attention.layers: the readout position sees no word of the review"):
        jobs.inspect(load_config(None, [f"model.path={tiny_model}"]), ["a fine film"], None, Console())
