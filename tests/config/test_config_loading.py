"""Files to a checked configuration, and the messages for what is wrong with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from afa_llm.config import Config
from afa_llm.config_fields import Place, sections
from afa_llm.config_loading import dump_config, explain_settings, load_config, read_yaml, resolve_builtin
from afa_llm.errors import AfaError

LISTED = "a list, each entry"


def message(overrides: list[str] | str = (), path: Path | None = None) -> str:  # type: ignore[assignment]
    overrides = [overrides] if isinstance(overrides, str) else overrides
    with pytest.raises(AfaError) as error:
        load_config(str(path) if path else None, overrides)
    return str(error.value)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_file(text: str | bytes) -> Path:
        file = tmp_path / "c.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write_file


# Files


def test_nothing_gives_the_defaults(write: Any) -> None:
    assert load_config() == Config()
    for text in ("", "# only a comment\n", "---\n", "training:\n", "data:\n  train:\n  # path: x\n", "\ufeff"):
        assert load_config(str(write(text))) == Config(), text


def test_a_file_is_read(write: Any) -> None:
    config = load_config(
        str(write("training:\n  epochs: 3\n  learning_rate: 1e-3\ndata:\n  labels:\n    no: [no, 0]\n    yes: [1]\n"))
    )
    assert (config.training.epochs, config.training.learning_rate) == (3.0, 0.001)
    assert config.data.labels == {"no": ("no", 0), "yes": (1,)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training:\n  epochs: [1\nrun: {}\n", " line 3: not valid YAML: "),
        ("run:\n\tname: x\n", " line 2: not valid YAML: "),
        ("run: {seed: 1}\nmodel: {}\nrun: {name: x}\n", " line 3: not valid YAML: 'run' stands twice"),
        ("- run\n", ": holds a list; a configuration is a mapping of sections"),
        ("just words\n", ": holds one value; a configuration is a mapping of sections"),
        (b"run: {name: caf\xe9}\n", ": not a text file in UTF-8 (byte 15); save it as UTF-8"),
        ("a: " + "[" * 20_000, ": not valid YAML: nested too deeply"),
    ],
    ids=range(7),
)
def test_files_that_hold_no_configuration(write: Any, text: str | bytes, words: str) -> None:
    file = write(text)
    found = message(path=file)
    assert found.startswith(f"{file}{words}")
    assert "\n" not in found


def test_a_benchmark_is_no_configuration_of_a_run(write: Any) -> None:
    file = write("name: x\narms: {a: {}}\ndata_sets: {d: {}}\n")
    assert (
        message(path=file) == f"{file}: a benchmark, not the settings of one run; start it with `afa benchmark {file}`"
    )


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert (
        message(path=tmp_path / "no.yaml") == f"{tmp_path / 'no.yaml'}: no such file; name a YAML file or builtin:demo"
    )
    assert message(path=tmp_path) == f"{tmp_path}: a folder, not a file; name a YAML file"


@pytest.mark.parametrize("through_link", [False, True])
def test_a_named_pipe_is_not_waited_for(tmp_path: Path, through_link: bool) -> None:
    """Nobody writes into it: reading it would wait for ever. One that a shell makes for `<(command)` has no name."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    path = tmp_path / ("link" if through_link else "pipe")
    command = [sys.executable, "-m", "afa_llm", "config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (2, f"afa config: {path}: a named pipe, not a file; name a YAML file\n")


def test_a_pipe_of_the_shell_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"run: {name: piped}\n")
    os.close(writer)
    with os.fdopen(reader):
        assert load_config(f"/dev/fd/{reader}").run.name == "piped"


def test_unknown_builtins_name_the_known() -> None:
    with pytest.raises(AfaError, match=r"builtin:nothing: no such builtin; there are "):
        read_yaml("builtin:nothing")
    assert resolve_builtin("some/file.yaml", "configs", ".yaml") == Path("some/file.yaml")


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
        ("data.id_column=x", "did you mean data.train.id_column?"),
        ("reward.zzz=3", "reward.zzz: unknown setting; known are source, label_weight, normalise, shuffle"),
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
        ("training.max_steps=0", "should be a whole number of at least 1, or null (it is: optimizer steps"),
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
