"""launch/hostfile.sh over a real ssh server and pdsh: arguments and signals arrive, stop.sh finds the ranks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launched import ranks_of
from needs import needs
from private_ssh import HOSTS, PrivateSsh, missing_for_ssh, private_ssh

pytestmark = [
    pytest.mark.slow,
    pytest.mark.system,
    needs(missing_for_ssh("pdsh")),
]

AWKWARD = [
    "run.name=mine",
    "data.evaluation=[{path: 'builtin:planted', split: test}]",
    "a=[one,two]",
    "b={x,y}",
    "c=$HOME",
    "d=`id` $(id)",
    "e=\"quoted\" and 'quoted'",
    "f=50%n of %h",
    "g=back\\slash",
    "h=back\\slash and $PATH",
    "i=;echo",
    "j=~",
]


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[PrivateSsh]:
    with private_ssh(tmp_path / "ssh") as server:
        yield server


@pytest.fixture
def hostfile(tmp_path: Path, programs: Callable, place: Path, environment: dict[str, str]) -> str:
    """Two hosts of one slot, and the variables that ssh would drop.

    Python gets a path of this test's own: on SIGTERM DeepSpeed ends every launcher of that Python on every host.
    """
    (tmp_path / "python").symlink_to(sys.prefix)
    programs("deepspeed", f'exec {tmp_path}/python/bin/python -m deepspeed.launcher.runner "$@"')
    (tmp_path / "hosts").write_text("# two hosts\n" + "".join(f"{host} slots=1\n" for host in HOSTS))
    kept = ("DS_ACCELERATOR", "STAND_IN", "TEST_FOLDER", "OMP_NUM_THREADS")
    (tmp_path / "variables").write_text("".join(f"{name}={environment[name]}\n" for name in kept))
    environment["DS_ENV_FILE"] = str(tmp_path / "variables")
    return str(tmp_path / "hosts")


def test_arguments_and_a_signal_arrive(start: Callable, place: Path, ssh: PrivateSsh, hostfile: str) -> None:
    script = start("hostfile.sh", hostfile, "c.yaml", *AWKWARD, **ssh.variables)
    for note in ranks_of(place, 2):
        assert note["arguments"][1:] == ["train", "c.yaml", *AWKWARD, "training.engine=deepspeed"]
        assert note["WORLD_SIZE"] == "2"
    script.send("SIGTERM")
    code, output = script.end()
    assert code == 75, output
    assert (place / "stopped_0").read_text() == (place / "stopped_1").read_text() == "SIGTERM"


def test_stop_by_hostfile(start: Callable, place: Path, ssh: PrivateSsh, hostfile: str) -> None:
    variables = ssh.variables
    script = start("hostfile.sh", hostfile, "c.yaml", *AWKWARD, **variables)
    ranks_of(place, 2)
    stop = ["stop.sh", "--hostfile", hostfile, "c.yaml"]
    assert start(*stop, "run.name=another", **variables).end()[0] == 1
    code, output = start(*stop, *AWKWARD, **variables).end()
    assert code == 0 and "SIGUSR1 sent" in output
    code, output = script.end()
    assert code == 75, output


def test_interrupted_twice_kills_on_every_host(
    start: Callable, place: Path, tmp_path: Path, ssh: PrivateSsh, hostfile: str
) -> None:
    """Ranks that don't mind the first."""
    with (tmp_path / "variables").open("a") as file:
        file.write("UNINTERRUPTED=1\n")
    script = start("hostfile.sh", hostfile, "c.yaml", **ssh.variables)
    ranks_of(place, 2)
    script.send("SIGINT")
    time.sleep(1)  # two signals at once would be one
    script.send("SIGINT")
    code, output = script.end()
    assert code == 130, output
