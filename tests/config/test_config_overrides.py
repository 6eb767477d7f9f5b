"""`section.key=value` laid over a file."""

from __future__ import annotations

from typing import Any

import pytest

from afa_llm.config import Config
from afa_llm.config_loading import load_config
from afa_llm.config_overrides import lay_over
from afa_llm.errors import AfaError


def reach(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = (
            config[int(part)] if part.isdigit() else config[part] if isinstance(config, dict) else getattr(config, part)
        )
    return config


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.epochs=2", 2.0),
        ("training.learning_rate=1e-3", 0.001),
        ("training.learning_rate=.5", 0.5),
        ("training.reviews_per_step=1e2", 100),
        ("training.betas=[0.5, 9e-1]", (0.5, 0.9)),
        ("training.betas.1=0.5", (0.9, 0.5)),
        ("training.max_steps=none", None),
        ("training.max_steps=null", None),
        ("run.overwrite=true", True),
        ("run.overwrite=yes", True),
        ("run.name=2024", "2024"),
        ("run.name='2024'", "2024"),
        ("attention.layers=all", "all"),
        ("attention.layers=[-1, 0]", (-1, 0)),
        ("lora.target_modules=q_proj", "q_proj"),
        ("lora.target_modules=[q_proj, v_proj]", ("q_proj", "v_proj")),
        ("evaluation.calibrations=[none, batch]", ("none", "batch")),
        ("model.revision=0012345", "0012345"),
        ("model.revision=1e10", "1e10"),
        ("model.revision=none", None),
        ("model.quantization=none", "none"),
        ("masking.fillers.0= x", (" x",)),
        ('masking.fillers.0=" x"', (" x",)),
        ("masking.fillers.0=", ("",)),
        ("masking.fillers.0=a=b", ("a=b",)),
        ("data.train.path=/data/{a}: b.csv", "/data/{a}: b.csv"),
        ("data.train.id_column=~", None),
        ("data.labels.positive=[5, yes]", {"negative": (0, "negative", "neg"), "positive": (5, "yes")}),
        ("data.labels={a: [0], b: [1]}", {"a": (0,), "b": (1,)}),
        ("data.evaluation=[]", ()),
        (" training.epochs =2", 2.0),
    ],
)
def test_an_override_sets_its_value(override: str, value: Any) -> None:
    config = load_config(None, [override])
    name = override.partition("=")[0].strip()
    field = name if not name.endswith((".0", ".1", ".positive")) else name.rpartition(".")[0]
    found = reach(config, field)
    assert found == value and type(found) is type(value)
    changed = {key for key in Config.model_fields if getattr(config, key) != getattr(Config(), key)}
    assert changed <= {name.split(".")[0]}


def test_an_entry_of_a_list_of_sections() -> None:
    """The list's default is changed in part: what nobody names stays."""
    config = load_config(None, ["data.evaluation.0.split=test", "data.evaluation.0.max_samples=7"])
    assert [(source.path, source.split, source.max_samples) for source in config.data.evaluation] == [
        ("builtin:planted", "test", 7)
    ]


def test_entries_of_a_list_in_the_file(tmp_path: Any) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data:\n  evaluation:\n  - {path: a.csv, split: x}\n  - {path: b.csv}\ntraining: {epochs: 3}\n")
    config = load_config(
        str(file), ["data.evaluation.1.split=2", "data.evaluation.0={path: c.csv}", "training.max_steps=4"]
    )
    assert [(source.path, source.split) for source in config.data.evaluation] == [("c.csv", "train"), ("b.csv", "2")]
    assert (config.training.epochs, config.training.max_steps) == (3, 4)


def test_the_last_override_wins() -> None:
    assert load_config(None, ["run.seed=1", "run.seed=2"]).run.seed == 2
    assert load_config(None, ["training={epochs: 5}", "training.max_steps=2"]).training.epochs == 5


def test_defaults_are_not_touched() -> None:
    load_config(None, ["data.evaluation.0.split=test", "data.labels.positive=[9]", "training.betas.0=0.1"])
    assert Config() == load_config()
    assert Config().data.evaluation[0].split == "validation"


@pytest.mark.parametrize("text", ["training.epochs", "=3", "", "a..b=1", ".x=1", "training.=1", "--training.epochs"])
def test_bad_override_text(text: str) -> None:
    with pytest.raises(AfaError) as error:
        load_config(None, [text])
    assert str(error.value) == f"{text!r}: an override is section.key=value, such as training.epochs=2"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs.x=3", "training.epochs has no keys; override the whole value"),
        ("run.name.x.y=3", "run.name has no keys"),
        ("data.labels.positive.0.x=1", "data.labels.positive.0 has no keys"),
        ("data.evaluation.1.split=a", "no such entry; data.evaluation has entry 0 alone."),
        ("data.evaluation.x=3", "no such entry; data.evaluation has entry 0 alone."),
        ("data.evaluation.-1.split=3", "no such entry; data.evaluation has entry 0 alone."),
        ("data.evaluation.².split=a", "no such entry; data.evaluation has entry 0 alone."),
        ("data.labels.positive.²=3", "no such entry; data.labels.positive has entries 0, 1, 2."),
        ("training.betas.7=0.5", "no such entry; training.betas has entries 0, 1."),
        ("training.betas={", "not valid YAML; quote it"),
        ("training.epochs=[1", "not valid YAML; quote it"),
    ],
)
def test_overrides_that_lead_nowhere(override: str, words: str) -> None:
    with pytest.raises(AfaError) as error:
        load_config(None, [override])
    assert str(error.value).startswith(f"{override!r}: ")
    assert words in str(error.value)


def test_no_keys_below_a_value_of_the_file() -> None:
    with pytest.raises(AfaError, match=r"training has no keys"):
        lay_over({"training": 3}, "training.epochs=3")
    with pytest.raises(AfaError, match=r"data\.evaluation has no entries"):
        lay_over({"data": {"evaluation": []}}, "data.evaluation.0.split=x")


def test_unknown_names_are_left_for_the_message_about_them() -> None:
    values: dict[str, Any] = {}
    assert lay_over(values, "nowhere.at.all=1") == "nowhere.at.all"
    assert values == {"nowhere": {"at": {"all": 1}}}


def test_a_section_that_is_not_set_can_be_entered() -> None:
    """data.validation is null by default."""
    config = load_config(None, ["data.validation.path=dev.jsonl", "data.validation.max_samples=5"])
    assert config.data.validation is not None
    assert (config.data.validation.path, config.data.validation.max_samples) == ("dev.jsonl", 5)
    assert load_config(None, ["data.validation=null"]).data.validation is None
    with pytest.raises(AfaError, match=r"data\.validation = .*pth.*with the keys name, path"):
        load_config(None, ["data.validation.pth=dev.jsonl"])
