"""Paths of a benchmark that are there as something else are told before anything runs, of a report too."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from test_loading import GOOD

from afa_llm.benchmark import command
from afa_llm.cli_options import build_parser
from afa_llm.errors import AfaError


def options(config: Path, **given: object) -> argparse.Namespace:
    found = {"overrides": [], "jobs": 1, "launcher": "", "only": [], "dry_run": False, "report": False}
    return argparse.Namespace(config=str(config), **found | given)


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MatrixRunner", None)
    monkeypatch.setattr(command, "_check_data", lambda cells, reference: {})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "b.yaml").write_text(GOOD.replace("output_dir: out", f"output_dir: {tmp_path / 'out'}"))
    return tmp_path / "b.yaml"


@pytest.mark.parametrize("how", [{"report": True}, {"dry_run": True}, {}])
@pytest.mark.parametrize("name", ["", "small", "small/_before", "small/planted", "small/planted/ce", "small/tables"])
def test_a_file_where_a_folder_belongs(config: Path, name: str, how: dict[str, bool]) -> None:
    path = config.parent / "out" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    with pytest.raises(AfaError, match=f"{path}: is no folder, and one is needed here\nmove it away, or choose"):
        command.run(options(config, **how))


@pytest.mark.parametrize(
    "name",
    [".lock", "report.html", "benchmark.json", *(f"planted/ce/seed3{end}" for end in (".log", ".yaml", ".lock"))],
)
def test_a_folder_where_a_file_belongs(config: Path, name: str) -> None:
    path = config.parent / "out" / "small" / name
    path.mkdir(parents=True)
    for how in ({"report": True}, {"dry_run": True}, {}):
        with pytest.raises(AfaError, match=f"{path}: is a folder, and a file is written here\nmove it away"):
            command.run(options(config, **how))


def test_nothing_there_or_all_as_it_should_be(config: Path) -> None:
    nothing = f"{config.parent / 'out' / 'small'}: no cell is finished there"
    with pytest.raises(AfaError, match=nothing):
        command.run(options(config, report=True))
    (config.parent / "out" / "small" / "planted" / "ce" / "seed3").mkdir(parents=True)
    (config.parent / "out" / "small" / "planted" / "ce" / "seed3.log").write_text("")
    with pytest.raises(AfaError, match=nothing):
        command.run(options(config, report=True))
    (config.parent / "out" / "small" / "tables").symlink_to("nowhere")
    with pytest.raises(AfaError, match="tables: is no folder"):
        command.run(options(config, report=True))


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ("deepspeed '", r"not a command line \(No closing quotation\); close the quotes"),
        ("nosuchprogram --num_gpus 2", "no such program 'nosuchprogram'"),
        ("/dev/null", "no such program '/dev/null'"),
        (" ", "no such program"),
    ],
)
def test_a_launcher_that_starts_nothing(config: Path, launcher: str, message: str) -> None:
    for how in ({"dry_run": True}, {}):
        with pytest.raises(AfaError, match=f"--launcher .*{message}"):
            command.run(options(config, launcher=launcher, **how))


@pytest.mark.parametrize("jobs", ["0", "-1", "x", "1025", "1" + "0" * 22, "1" * 5000])
def test_jobs_are_a_number_of_slots(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(["benchmark", "b.yaml", f"--jobs={jobs}"])
    assert "a whole number from 1 to 1024" in capsys.readouterr().err
    assert build_parser().parse_args(["benchmark", "b.yaml", "--jobs=1024"]).jobs == 1024
