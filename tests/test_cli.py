"""The verbs that the command offers are those that it can do; what is CONFIG and what an override."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

import pytest

from afa_llm.cli import VERBS, _split
from afa_llm.cli_options import build_parser
from afa_llm.errors import AfaError


def test_every_verb_has_its_job() -> None:
    (verbs,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(verbs.choices) == set(VERBS)


@pytest.mark.parametrize(
    ("argument", "is_override"),
    [
        ("training.epochs=2", True),
        ("data.suites_dir=" + "x" * 300, True),
        ("data.evaluation.0.path=" + "x/" * 3000, True),
        ("trainin.epochs=2", True),
        ("epochs=" + "x" * 300, True),
        ("lr=2/run.yaml", False),
        ("run.v2/lr=2.yaml", False),
        ("exp.v2=a.yaml", False),
        ("model.path=a.yaml", True),  # though there is such a file
        ("./model.path=a.yaml", False),
        ("plain.yaml", False),
    ],
)
def test_config_may_be_left_out(
    argument: str, is_override: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lr=2/run.yaml", "run.v2/lr=2.yaml", "exp.v2=a.yaml", "model.path=a.yaml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    found = _split(argparse.Namespace(config=argument, overrides=["lora.rank=4"]))
    assert found == ((None, [argument, "lora.rank=4"]) if is_override else (argument, ["lora.rank=4"]))


def test_version_needs_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """It was taken for a missing verb."""
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"afa-llm {version('afa-llm')}\n"


def test_inspect_takes_settings_from_one_place(tmp_path: Path) -> None:
    """--config beside --run was passed over without a word."""
    options = build_parser().parse_args(["inspect", "a film", "--run", str(tmp_path), "--config", "builtin:demo"])
    with pytest.raises(AfaError, match=r"--config builtin:demo: --run .* leave one of the two out"):
        VERBS["inspect"](options)


def test_inspect_of_what_is_no_run(tmp_path: Path) -> None:
    """It was told to name a YAML file."""
    options = build_parser().parse_args(["inspect", "a film", "--run", str(tmp_path)])
    with pytest.raises(AfaError, match=r"--run .*: no run, config.yaml is missing there; name a run's folder"):
        VERBS["inspect"](options)


def test_a_benchmark_without_config_is_asked_for_that_alone(capsys: pytest.CaptureFixture) -> None:
    """Overrides were said to be required too."""
    with pytest.raises(SystemExit):
        build_parser().parse_args(["benchmark"])
    assert capsys.readouterr().err.endswith("the following arguments are required: CONFIG\n")
