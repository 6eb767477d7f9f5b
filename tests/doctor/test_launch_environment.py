"""The variables that a remote rank will have, read as the deepspeed launcher reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from afa_llm.doctor.launch_environment import launch_environment
from afa_llm.errors import AfaError


def test_what_the_launcher_carries_and_what_it_drops() -> None:
    here = {"NCCL_DEBUG": "INFO", "PYTHONPATH": "/x", "GLOO_SOCKET_IFNAME": "eth0", "SECRET_TOKEN": "s"}
    assert launch_environment(here, []) == {"NCCL_DEBUG": "INFO", "PYTHONPATH": "/x"}


def test_the_file_is_laid_over_and_the_later_folder_wins(tmp_path: Path) -> None:
    for folder, value in (("home", "eth0"), ("here", "eth1")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".deepspeed_env").write_text(f"GLOO_SOCKET_IFNAME={value}\nPYTHONPATH=/y=z\n")
    found = launch_environment({"PYTHONPATH": "/x"}, [tmp_path / "home", tmp_path / "none", tmp_path / "here"])
    assert found == {"GLOO_SOCKET_IFNAME": "eth1", "PYTHONPATH": "/y=z"}


def test_the_file_may_have_another_name(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A=1\n")
    assert launch_environment({"DS_ENV_FILE": "env"}, [tmp_path]) == {"A": "1"}
    assert launch_environment({"DS_ENV_FILE": str(tmp_path / "env")}, [Path()]) == {"A": "1"}


@pytest.mark.parametrize("line", ["", "# comment", "export A=1", "A", "A;B=1"])
def test_a_line_that_the_launcher_would_misread_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / ".deepspeed_env").write_text(f"A=1\n{line}\nB=2\n")
    with pytest.raises(AfaError, match=r"deepspeed_env line 2: .*no NAME=VALUE"):
        launch_environment({}, [tmp_path])
