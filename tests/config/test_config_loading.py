"""Settings to a checked configuration, and the messages for what is wrong with them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from told import message

from afa_llm.config import Config
from afa_llm.config_fields import Place, sections
from afa_llm.config_loading import dump_config, explain_settings, load_config

LISTED = "a list, each entry"


# Unknown keys


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainin.epochs=3", "trainin: unknown setting; did you mean training?"),
        ("training.epoch=3", "training.epoch: unknown setting; did you mean training.epochs?"),
        ("data.train.pth=3", "data.train.pth: unknown setting; did you mean data.train.path?"),
        (
            "data.evaluation=[{}, {splt: x}]",
            "data.evaluation.1.splt: unknown setting; did you mean data.evaluation.1.split?",
        ),
        ("data.evaluation.0.splt=x", "data.evaluation.0.splt: unknown setting; did you mean data.evaluation.0.split?"),
        ("epochs=3", "epochs: unknown setting; did you mean training.epochs?"),
        ("model.rank=3", "model.rank: unknown setting; did you mean lora.rank?"),
        ("masking.masks=3", "masking.masks: unknown setting; did you mean masking.masks_per_review?"),
        ("lora.learning_rate=1", "did you mean adversary.learning_rate or training.learning_rate?"),
        ("training.batch_size=8", "did you mean training.micro_batch_size or evaluation.batch_size?"),
        ("data.id_column=x", "did you mean data.train.id_column?"),
        (
            "reward.zzz=3",
            "reward.zzz: unknown setting; known are source, rarity_power, label_weight, normalise, shuffle",
        ),
        ("zzz=3", "zzz: unknown setting; known are run, model, lora"),
    ],
)
def test_unknown_keys_name_the_nearest(override: str, words: str) -> None:
    assert words in message(override)


def test_keys_that_are_no_text(write: Any) -> None:
    assert ": 1: unknown setting; known are run" in message(path=write("1: 2\n"))
    assert ": run.true: unknown setting" in message(path=write("run: {'true': 2}\n"))


def test_a_section_that_holds_itself(write: Any) -> None:
    assert "data.train.train: unknown setting" in message(path=write("data: &d\n  train: *d\n"))


# Wrong values


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs=many", "training.epochs = 'many': should be a number above 0 (it is: passes over"),
        ("training.epochs=0", "training.epochs = 0: should be a number above 0"),
        ("training.epochs=true", "training.epochs = true: should be a number above 0"),
        ("training.epochs=null", "training.epochs = null: should be a number above 0"),
        ("training.epochs=[1]", "training.epochs = [1]: should be a number above 0"),
        ("run.seed=1.5", "run.seed = 1.5: should be a whole number of at least 0"),
        ("run.seed=99999999999999999999", "run.seed = 99999999999999999999: should be a whole number"),
        ("masking.rate=1", "masking.rate = 1: should be a number above 0 and below 1"),
        ("masking.rate=nan", "should be a number above 0 and below 1 (and finite)"),
        ("data.train.part=[0.9, 0.1]", "data.train.part = [0.9, 0.1]: should be two rising numbers between 0 and 1"),
        ("training.max_steps=0", "should be a whole number of at least 1, or null (it is: at most so many optimizer"),
        ("training.max_steps=true", "training.max_steps = true: should be a whole number"),
        ("model.quantization=nf5", "model.quantization = 'nf5': should be nf4, int8 or none (it is: storage"),
        ("training.zero_stage=4", "training.zero_stage = 4: should be 0, 1, 2 or 3"),
        ("run.overwrite=maybe", "run.overwrite = 'maybe': should be true or false"),
        ("model.path=", "model.path = '': should be text with at least 1 character (it is: hub name"),
        ("data.evaluation=[{path: ''}]", "data.evaluation.0.path = '': should be text with at least 1 character"),
        ("prompts.file=", "prompts.file = '': should be text with at least 1 character"),
        ("prompts.evaluation=[]", "prompts.evaluation = []: should be a list, each entry text with at least 1 entry"),
        ("run.name=a b", "run.name = 'a b': should be text of the form ^"),
        ("attention.layers=foo", f"'foo': should be auto, all, last_half, last_third or {LISTED} a whole number"),
        ("attention.layers=[1, x]", "attention.layers = [1, 'x']: should be auto, all, last_half, last_third or a"),
        ("lora.target_modules=[1]", f"lora.target_modules = [1]: should be text or {LISTED} text"),
        ("training.betas=[0.9]", "training.betas = [0.9]: should be a list of 2: [a number, a number]"),
        ("training.betas=[0.9, x]", "training.betas.1 = 'x': should be a number (it is: moment decay rates"),
        ("adversary.features=[]", f"features = []: should be {LISTED} hidden, labels, shift or focus with at least 1"),
        ("adversary.features=[hidden, foo]", "adversary.features.1 = 'foo': should be hidden, labels, shift or focus"),
        ("prompts.evaluation=[]", f"prompts.evaluation = []: should be {LISTED} text with at least 1 entry"),
        ("run.threads=100000", "run.threads = 100000: should be a whole number of at least 1 and at most 1024"),
        ("training.learning_rate=1e300", "training.learning_rate = 1e+300: should be a number above 0 and at most"),
        ("prompts.evaluation=a", f"prompts.evaluation = 'a': should be {LISTED} text"),
        ("data.labels=[a]", "data.labels = ['a']: should be a mapping of names, each to a list"),
        ("data.labels={a: 1, b: [2]}", "data.labels.a = 1: should be a list, each entry text, a whole number"),
        ("data.labels={a: [[1]], b: [2]}", "data.labels.a.0 = [1]: should be text, a whole number"),
        ("data.labels={1: [0], b: [2]}", "data.labels: the name 1 should be text; put it in quotes"),
        ("data.train=x", "data.train = 'x': should be a section with the keys name, path"),
        ("data.evaluation=[3]", "data.evaluation.0 = 3: should be a section with the keys name, path"),
        ("data.evaluation=[{split: 3}]", "data.evaluation.0.split = 3: should be text; put it in quotes (it is: split"),
        ("training=3", "training = 3: should be a section with the keys epochs, "),
    ],
)  # fmt: skip
def test_wrong_values_name_field_value_and_meaning(override: str, words: str) -> None:
    found = message(override)
    assert words in found
    assert "\n" not in found, "one line for one wrong value"
    assert "(it is: " in found or "the name 1" in found
    for jargon in ("tuple", "dict", "Input", "instance", "None", "True"):
        assert jargon not in found


def test_long_values_are_cut() -> None:
    assert len(message(f"training.epochs={'x' * 5000}")) < 200


def test_every_wrong_setting_has_its_line_and_its_origin(write: Any) -> None:
    file = write("run: {seed: q, name: fine}\ntraining: {max_steps: z}\n")
    lines = message(["training.epochs=x", "run.threads=0"], file).splitlines()
    assert [line.split(" = ")[0] for line in lines] == [
        f"{file}: run.seed",
        "run.threads",
        "training.epochs",
        f"{file}: training.max_steps",
    ]
    file = write("run: {sed: 1}\n")
    assert message(["training.epohs=1"], file).splitlines() == [
        f"{file}: run.sed: unknown setting; did you mean run.seed?",
        "training.epohs: unknown setting; did you mean training.epochs?",
    ]


# The whole


FULL = """
run: {name: '2024', seed: 7}
model: {path: 'a: b', revision: '0012', dtype: float32, gradient_checkpointing: true}
lora: {target_modules: [q_proj, v_proj], dropout: 0.1}
data:
  train: {path: x.csv, words_column: 'no', rationale_neutral: 2}
  evaluation:
  - {path: a.csv, split: 'on'}
  - {path: b.csv, max_samples: 3, name: 'null'}
  labels: {'yes': [1, '1', true, 1.5, 'no'], 'no': [0, ' é ', '~']}
attention: {layers: [-1, 0]}
masking: {direction: attended, fillers: [' _', ' a'], infill: {candidates: 2}, rate: 1.0e-05}
training: {betas: [0.1, 0.2], max_steps: 5}
evaluation: {focus_fractions: [0.5, 1.0e-07]}
"""


@pytest.mark.parametrize("text", ["", FULL])
def test_a_dump_reads_back_to_the_same(write: Any, text: str) -> None:
    config = load_config(str(write(text)))
    again = load_config(str(write(dump_config(config))))
    assert again == config
    assert repr(again) == repr(config)  # 1, 1.0 and True are equal, but not the same label
    assert dump_config(again) == dump_config(config)


def test_a_configuration_is_frozen() -> None:
    config = Config()
    for section, name, value in ((config, "run", None), (config.run, "seed", 3), (config.data.train, "path", "x")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, value)


def fields(model: type[BaseModel]) -> list[tuple[type[BaseModel], str]]:
    found = []
    for name, field in model.model_fields.items():
        found.append((model, name))
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += fields(kind)
    return found


def test_every_setting_has_a_description_and_is_explained() -> None:
    explained = explain_settings()
    every = fields(Config)
    assert len(every) > 100
    for model, name in every:
        description = model.model_fields[name].description
        assert description and len(description) > 3, name
        assert description in explained
    assert (
        explained.count(" = ") == len(dict.fromkeys(every)) - len(Config.model_fields) - 2
    )  # but for data.train, masking.infill
    for line in ("  run.seed = 0\n", '  data.train.path = "builtin:planted"\n', "  training.betas = [0.9, 0.95]\n"):
        assert line in explained
    assert "(nf4, int8 or none)" in explained


def test_configuration_needs_no_torch() -> None:
    code = (
        "import afa_llm.config_loading as c, sys; c.load_config(None, ['run.seed=1']); c.explain_settings(); "
        "heavy = {'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_home_in_output_dir_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load_config(None, ["run.output_dir=~/runs"]).run.output_dir == "/home/somebody/runs"
    assert load_config(None, ["run.output_dir=runs/~x"]).run.output_dir == "runs/~x"


@pytest.mark.parametrize("setting", ["evaluation.before_folder", "rollouts.adapter_folder"])
def test_a_folder_that_is_written_is_none_called_tilde(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    section, name = setting.split(".")
    assert getattr(getattr(load_config(None, [f"{setting}=~/kept"]), section), name) == "/home/somebody/kept"
    assert getattr(getattr(load_config(None, [f"{setting}=null"]), section), name) is None


@pytest.mark.parametrize("setting", ["model.path", "prompts.file", "training.deepspeed_file", "rollouts.vllm_python"])
def test_a_path_that_is_read_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    section, name = setting.split(".")
    given = [f"{setting}=~/here", "training.engine=deepspeed"]
    assert getattr(getattr(load_config(None, given), section), name) == "/home/somebody/here"


def test_every_whole_number_has_a_bound_that_the_parts_can_hold() -> None:
    """10**22 fits no tensor, queue or clock; the defaults and common values are far below."""
    sections_of = {name: place.section or place.optional_section for name, place in sections()}
    counts = [
        f"{section}.{name}"
        for section, kind in sections_of.items()
        for name, field in (kind.model_fields if kind else {}).items()
        if int in Place(field.annotation, field).choices
    ]
    assert len(counts) > 35 and "adversary.replay" in counts and "prompts.demonstrations" in counts
    for name in [*counts, "training.epochs", "training.timeout_minutes", "rollouts.request_seconds"]:
        override = f"{name}={10**22}"
        found = message(override)
        assert found.startswith(f"{name} = {10**22}") and ("at most" in found or name == "run.seed"), found
    found = message("data.train.max_samples=1000000001")
    assert "should be a whole number of at least 1, or null (and at most 1000000000) (it is: " in found
    assert load_config(None, ["training.max_steps=1000000000"]).training.max_steps == 10**9
