"""The scripts as text, wrong uses, and exit codes. The launcher is a shell script here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from launched import LAUNCH, wait_for

SCRIPTS = sorted(path.name for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))
NODE = {"NODES": "2", "NODE_RANK": "1", "SLOTS": "3", "MASTER_ADDR": "node-a"}
SHOW = 'printf "%s\\n" "$@"; while [ "$1" != --hostfile ]; do shift; done; cat "$2"'

WRONG_USES = {
    "single node, no config": ("single_node.sh", [], {}, "CONFIG"),
    "node, no config": ("node.sh", [], NODE, "CONFIG is missing"),
    "node, no rank": ("node.sh", ["c.yaml"], NODE | {"NODE_RANK": ""}, "NODE_RANK="),
    "node, rank too high": ("node.sh", ["c.yaml"], NODE | {"NODE_RANK": "2"}, "must be below NODES=2"),
    "node, number that bash takes for octal": ("node.sh", ["c.yaml"], NODE | {"NODES": "010"}, "NODES=010: must be a"),
    "node, slots no number": ("node.sh", ["c.yaml"], NODE | {"SLOTS": "8x"}, "SLOTS=8x: must be a whole number"),
    "node, no slots": ("node.sh", ["c.yaml"], NODE | {"SLOTS": "0"}, "at least 1"),
    "node, no address": ("node.sh", ["c.yaml"], NODE | {"MASTER_ADDR": ""}, "MASTER_ADDR is missing"),
    "hostfile, no config": ("hostfile.sh", ["hosts"], {}, "HOSTFILE and CONFIG"),
    "hostfile that isn't there": ("hostfile.sh", ["nowhere", "c.yaml"], {}, "nowhere: cannot be read"),
    "hostfile that is a folder": ("hostfile.sh", [".", "c.yaml"], {}, ".: not a file"),
    "stop what": ("stop.sh", [], {}, "which job?"),
    "stop by another signal": ("stop.sh", ["--signal", "STOP", "c.yaml"], {}, "--signal STOP"),
    "stop, option without its value": ("stop.sh", ["--hostfile"], {}, "--hostfile: needs a value"),
    "stop, unknown option": ("stop.sh", ["--all"], {}, "--all: unknown option"),
    "stop, hostfile that isn't there": ("stop.sh", ["--hostfile", "nowhere", "c.yaml"], {}, "nowhere"),
    "slurm, no config": ("slurm.sbatch", [], {}, "sbatch launch/slurm.sbatch CONFIG"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_reads_it(name: str) -> None:
    subprocess.run(["bash", "-n", str(LAUNCH / name)], check=True)


def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "--external-sources", *(f"launch/{name}" for name in SCRIPTS)],
        cwd=LAUNCH.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", WRONG_USES)
def test_wrong_use(start: Callable, programs: Callable, name: str) -> None:
    script, arguments, variables, expected = WRONG_USES[name]
    programs("deepspeed", "exit 7")
    programs("pdsh", "exit 7")
    code, output = start(script, *arguments, **variables).end()
    assert code == 2, output
    assert expected in output and "usage" in output


@pytest.mark.parametrize("folder", ["my runs", "a;b", "50%n", "it's", "$x"])
def test_a_folder_that_the_other_shells_would_take_apart(
    start: Callable, programs: Callable, tmp_path: Path, folder: str
) -> None:
    """DeepSpeed sends `cd FOLDER;` without quotes: the ranks of `my runs` started in the home folder."""
    programs("deepspeed", "exit 7")
    programs("pdsh", "exit 7")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "hosts").write_text("node-a slots=1\n")
    code, output = start("hostfile.sh", "hosts", "c.yaml", prefix=("env", "-C", str(tmp_path / folder))).end()
    assert code == 2, output
    assert f"{folder}: DeepSpeed hands this path" in output


@pytest.mark.parametrize("code", [0, 1, 2, 75, 76, 130, 247])
def test_exit_code_of_the_launcher_is_the_scripts(start: Callable, programs: Callable, code: int) -> None:
    programs("deepspeed", f"sleep 0.2; exit {code}")
    assert start("single_node.sh", "c.yaml").end()[0] == code


def test_children_that_outlive_the_launcher_are_ended(start: Callable, programs: Callable) -> None:
    """And a launcher's 0 isn't believed then: `deepspeed` gives it where its inner launcher was killed."""
    programs("deepspeed", "sleep 300 & exit 0")
    code, output = start("single_node.sh", "c.yaml").end()
    assert code == 1
    assert "outlived" in output


def test_interrupted_twice_kills(start: Callable, programs: Callable, tmp_path: Path) -> None:
    programs("deepspeed", "trap '' INT TERM; touch up; while true; do sleep 300; done")
    script = start("single_node.sh", "c.yaml")
    wait_for(tmp_path / "up")
    script.send("SIGINT")
    with pytest.raises(subprocess.TimeoutExpired):
        script.end(seconds=2)
    script.send("SIGINT")
    assert script.end()[0] == 130


def test_node_tells_the_launcher_the_shape_of_the_job(start: Callable, programs: Callable) -> None:
    programs("deepspeed", SHOW)
    code, output = start("node.sh", "c.yaml", "a.b=[1, 2]", **NODE).end()
    lines = output.splitlines()
    assert code == 0, output
    assert lines[-2:] == ["node-0 slots=3", "node-1 slots=3"]
    hostfile = lines[1]
    expected = ["--hostfile", hostfile, "--no_ssh", "--node_rank", "1", "--master_addr", "node-a", "--master_port"]
    rest = ["29500", "--module", "afa_llm", "train", "c.yaml", "a.b=[1, 2]", "training.engine=deepspeed"]
    assert lines[:-2] == expected + rest
    assert not Path(hostfile).exists()


def test_stop_finds_no_rank(start: Callable) -> None:
    code, output = start("stop.sh", "run.name=no-such-run").end()
    assert (code, output) == (1, "")
