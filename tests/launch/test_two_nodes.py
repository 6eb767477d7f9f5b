"""The real program on two nodes that are one machine: the same numbers as two ranks on a single node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from launched import Script, launch_environment, scripts_in, wait_for
from needs import needs, unmet
from private_ssh import HOSTS, missing_for_ssh, private_ssh

from afa_llm.training.distributed import free_port

SMALL = [
    "model.dtype=float32",
    "data.train.max_samples=24",
    "data.evaluation=[{path: 'builtin:planted', split: test, max_samples: 8}]",
    "prompts.evaluation=[review_sentiment]",
    "evaluation.focus_samples=2",
    "training.reviews_per_step=8",
    "training.micro_batch_size=2",
    "training.max_steps=3",
    "training.learning_rate=1e-3",
    "training.timeout_minutes=3",
    "training.checkpoint_every=0",
    "adversary.warmup_rounds=1",
]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[str]:
    config = tmp_path_factory.mktemp("job") / "job.yaml"
    config.write_text("training: {zero_stage: 2}\n")
    return [str(config), f"model.path={tiny_model}", *SMALL]


@pytest.fixture(scope="module")
def single_node(tmp_path_factory: pytest.TempPathFactory, job: list[str]) -> Path:
    """The run's folder of the same job with two ranks on one node."""
    folder = tmp_path_factory.mktemp("single")
    with scripts_in(folder, launch_environment(folder)) as start:
        code, output = start("single_node.sh", *job, RANKS="2").end(seconds=300)
    assert code == 0, output
    return folder / "runs" / "run"


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory, job: list[str]) -> Path:
    """The run's folder of two launchers that know each other by an address only, as on two hosts."""
    folder = tmp_path_factory.mktemp("loopback")
    with scripts_in(folder, launch_environment(folder)) as start:
        both_nodes(start, job, "127.0.0.1", [(), ()])
    return folder / "runs" / "run"


def assert_same(folder: Path, single: Path) -> None:
    """One results.json of a world of two, and every step's numbers."""
    assert len(list(folder.parents[1].rglob("results.json"))) == 1
    results, expected = (json.loads((run / "results.json").read_text()) for run in (folder, single))
    assert results["run"]["world_size"] == expected["run"]["world_size"] == 2
    for phase in ("before", "after"):
        assert results["scores"][0][phase] == expected["scores"][0][phase]
    rows, others = ((run / "metrics.jsonl").read_text().splitlines() for run in (folder, single))
    assert len(rows) == len(others) == 3
    for row, other in zip(map(json.loads, rows), map(json.loads, others), strict=True):
        for name in (name for name in other if not name.endswith(("seconds", "memory_gib"))):
            # The same sums in the same order; only the road between the ranks differs. Worst seen: no difference.
            assert row[name] == pytest.approx(other[name], rel=1e-6, abs=1e-9), (row["step"], name)


def start_nodes(
    start: Callable, job: list[str], address: str, prefixes: list[tuple[str, ...]], **variables: str
) -> list[Script]:
    """One script a node, each behind its prefix."""
    shape = {"NODES": "2", "SLOTS": "1", "MASTER_ADDR": address, "MASTER_PORT": str(free_port())}
    return [
        start("node.sh", *job, prefix=prefix, NODE_RANK=str(rank), **shape, **variables)
        for rank, prefix in enumerate(prefixes)
    ]


def both_nodes(
    start: Callable, job: list[str], address: str, prefixes: list[tuple[str, ...]], **variables: str
) -> None:
    for node in start_nodes(start, job, address, prefixes, **variables):
        code, output = node.end(seconds=300)
        assert code == 0, output


def test_without_ssh_on_loopback(loopback: Path) -> None:
    results = json.loads((loopback / "results.json").read_text())
    assert results["run"]["world_size"] == 2
    assert len((loopback / "metrics.jsonl").read_text().splitlines()) == results["training"]["steps"] == 3


@pytest.mark.slow
def test_loopback_gives_the_numbers_of_a_single_node(loopback: Path, single_node: Path) -> None:
    assert_same(loopback, single_node)


@pytest.mark.slow
def test_a_signal_to_one_node_stops_both_with_a_checkpoint(start: Callable, job: list[str], tmp_path: Path) -> None:
    """Sent to the script of node 1, whose rank writes no metrics and leads nothing."""
    long = [*job, "training.epochs=200", "training.max_steps=500", "run.resume=true"]
    nodes = start_nodes(start, long, "127.0.0.1", [(), ()])
    folder = tmp_path / "runs" / "run"
    wait_for(folder / "metrics.jsonl", seconds=300)
    nodes[1].send("SIGTERM")
    for node in nodes:
        code, output = node.end(seconds=120)
        assert code == 75, output
    steps = len((folder / "metrics.jsonl").read_text().splitlines())
    assert 0 < steps < 500
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"step_{steps:06d}"]


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two network namespaces, 10.231.77.1 and .2, joined by a pair of interfaces that are both called eth0."""
    names = [f"afa{os.getpid()}{side}" for side in "ab"]
    program = shutil.which("ip") or shutil.which("ip", path="/usr/sbin:/sbin")
    if os.geteuid() != 0 or not program:
        unmet("network namespaces need root and the program ip (Debian: iproute2)")

    def ip(*words: str, check: bool = True) -> None:
        done = subprocess.run([program, *words], capture_output=True, text=True)
        if check and done.returncode:
            unmet(f"network namespaces cannot be made here: {done.stderr.strip()}")

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", f"10.231.77.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name, check=False)


@pytest.mark.slow
@pytest.mark.system
def test_across_network_namespaces(
    start: Callable, job: list[str], tmp_path: Path, single_node: Path, namespaces: list[str]
) -> None:
    prefixes = [("ip", "netns", "exec", name) for name in namespaces]
    both_nodes(start, job, "10.231.77.1", prefixes, GLOO_SOCKET_IFNAME="eth0")
    assert_same(tmp_path / "runs" / "run", single_node)


@pytest.mark.slow
@pytest.mark.system
@needs(missing_for_ssh("pdsh"))
def test_hostfile_over_ssh(
    start: Callable, job: list[str], tmp_path: Path, single_node: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "hosts").write_text("".join(f"{host} slots=1\n" for host in HOSTS))
    kept = ("DS_ACCELERATOR", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TORCHDYNAMO_DISABLE", "TEST_FOLDER")
    (tmp_path / "variables").write_text("".join(f"{name}={environment[name]}\n" for name in kept))
    with private_ssh(tmp_path / "ssh") as ssh:
        variables = ssh.variables | {"DS_ENV_FILE": str(tmp_path / "variables")}
        code, output = start("hostfile.sh", str(tmp_path / "hosts"), *job, **variables).end(seconds=300)
    assert code == 0, output
    assert_same(tmp_path / "runs" / "run", single_node)
