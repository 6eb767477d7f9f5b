"""A real server that is killed, stopped, starved, misdirected, or behind a connection that loses replies."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from faulty_server import FaultyServer
from needs import needs_vllm
from processes import command_of
from real_engine import PATIENCE, SINGLE, Side, foreign_replica, launch, own_replica, prompts

from afa_llm.errors import AfaError
from afa_llm.rollouts import engine_process
from afa_llm.rollouts.engine_process import EngineProcess
from afa_llm.rollouts.fleet import Fleet
from afa_llm.rollouts.generator import ALONE
from afa_llm.rollouts.replica import Replica
from afa_llm.rollouts.vllm_client import EngineClient
from afa_llm.rollouts.vllm_server import ServerGenerator

pytestmark = [pytest.mark.vllm, needs_vllm]
CLOSE = 1e-5
MANY = 400


def nothing() -> None: ...


def processes_of(replica: Replica) -> list[psutil.Process]:
    """Guard, server and what they started."""
    assert replica.process and replica.process._guard
    guard = psutil.Process(replica.process._guard.pid)
    return [guard, *guard.children(recursive=True)]


def all_gone(processes: list[psutil.Process], seconds: float = 20) -> bool:
    _, alive = psutil.wait_procs(processes, seconds)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """A server of this file's own, which may be killed."""
    limits = replace(PATIENCE, request_seconds=8, restarts=4)
    replica = own_replica(tmp_path_factory.mktemp("mortal") / "engine.log", limits)
    replica.begin()
    replica.wait_ready(nothing)
    yield replica
    processes = processes_of(replica)
    replica.close()
    assert all_gone(processes)


def kill_server(replica: Replica) -> None:
    processes_of(replica)[1].kill()


def kill_core(replica: Replica) -> None:
    next(p for p in processes_of(replica) if "EngineCore" in " ".join(command_of(p))).kill()


def stop_all(replica: Replica) -> None:
    server = processes_of(replica)[1]
    os.killpg(server.pid, signal.SIGSTOP)


@pytest.mark.parametrize("fault", [kill_server, kill_core, stop_all])
def test_a_server_lost_in_a_batch_is_started_again_and_every_prompt_answered(
    mortal: Replica, side: Side, tmp_path: Path, fault: Callable[[Replica], None]
) -> None:
    fleet = Fleet([mortal], mortal.limits)
    side.move(4)
    side.save(tmp_path / "adapter")
    name = f"afa_{fault.__name__}"
    fleet.hold({name: str(tmp_path / "adapter")}, nothing)
    generator = ServerGenerator(fleet, ALONE, [0])
    generator.adapter = name
    expected = generator.answer(prompts(MANY), SINGLE).label_logprob_NC  # undisturbed, by the same kernels
    before, births = processes_of(mortal), mortal.births
    pending = generator.ask(prompts(MANY), SINGLE)
    time.sleep(0.5)
    assert pending._future and not pending._future.done()  # in the middle of it
    fault(mortal)
    found = pending.result().label_logprob_NC
    assert mortal.births == births + 1
    assert all_gone(before)
    assert (found - expected).abs().max() < CLOSE
    with side.decoder.base():  # the adapter came back with the engine: the base answers otherwise
        assert (found - side.generator.answer(prompts(MANY), SINGLE).label_logprob_NC).abs().max() > 0.1


def test_a_server_that_cannot_be_mended_is_an_end(mortal: Replica) -> None:
    limits, mortal.limits = mortal.limits, replace(mortal.limits, restarts=mortal.restarts)
    kill_server(mortal)
    with pytest.raises(AfaError, match=r"rollouts.restarts = \d: the engine failed once more"):
        ServerGenerator(Fleet([mortal], mortal.limits), ALONE, [0]).answer(prompts(20), SINGLE)
    mortal.limits = limits
    mortal.begin()
    mortal.wait_ready(nothing)


@pytest.mark.parametrize("fault", ["500", "lose", "other model", "missing"])
def test_faults_on_the_way_cost_a_retry(engine: Replica, side: Side, fault: str) -> None:
    proxy = FaultyServer(engine.client)
    replica = foreign_replica(proxy.client)
    replica.begin()
    replica.wait_ready(nothing)
    proxy.faults.extend([fault] * 3)
    found = ServerGenerator(Fleet([replica], replica.limits), ALONE, [0]).answer(prompts(40), SINGLE)
    proxy.close()
    assert not proxy.faults
    ours_NC = side.generator.answer(prompts(40), SINGLE).label_logprob_NC
    assert (found.label_logprob_NC - ours_NC).abs().max() < 10 * CLOSE  # by other kernels


def test_a_slow_start_ends_in_time_with_nothing_left(log: Path) -> None:
    replica = own_replica(log, replace(PATIENCE, start_seconds=3))
    replica.begin()
    processes = processes_of(replica)
    with pytest.raises(AfaError, match=r"rollouts.start_seconds = 3: the engine does not answer yet"):
        replica.wait_ready(nothing)
    assert all_gone(processes)


def test_who_was_asked_to_stop_does_not_wait_for_a_start(log: Path) -> None:
    replica = own_replica(log)
    replica.begin()
    processes = processes_of(replica)

    def stop() -> None:
        raise AfaError("stopped by SIGTERM")

    with pytest.raises(AfaError, match="stopped by SIGTERM"):
        replica.wait_ready(stop)
    replica.close()
    assert all_gone(processes)


def test_a_port_that_is_taken_costs_a_restart(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])
        free = engine_process.free_port
        monkeypatch.setattr(engine_process, "free_port", lambda: next(ports, None) or free())
        told: list[str] = []
        replica = own_replica(log, tell=told.append)
        replica.begin()
        replica.wait_ready(nothing)
        assert replica.restarts == 1 and "already in use" in told[0]
        replica.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "/nowhere/model"}, "nowhere"),
        ({"environment": {"VLLM_CPU_KVCACHE_SPACE": "900000"}}, "[Mm]emory"),
        ({"arguments": ("--no-such-option",)}, "no-such-option"),
        ({"python": "/nowhere/python"}, "nowhere"),
    ],
    ids=["wrong model", "out of memory", "wrong argument", "no interpreter"],
)
def test_a_start_that_fails_says_why(log: Path, change: dict[str, object], reason: str) -> None:
    process = EngineProcess(replace(launch(), **change), log)  # type: ignore[arg-type]
    replica = Replica(EngineClient(""), process, PATIENCE, print)
    replica.begin()
    with pytest.raises(AfaError, match=f"the engine ended while starting: .*{reason}") as told:
        replica.wait_ready(nothing)
    print(told.value)
    assert str(log) in str(told.value)


def test_another_server_at_our_port_is_not_taken_for_ours(engine: Replica, log: Path) -> None:
    process = EngineProcess(launch(), log)
    process.base_model, process.port, process.token = "base-ours", engine.process.port, engine.client.token  # type: ignore
    replica = Replica(engine.client, process, PATIENCE, print)
    with pytest.raises(AfaError, match="not the engine that was started"):
        replica._wait(nothing)


def test_a_wrong_token_is_said(engine: Replica) -> None:
    replica = foreign_replica(EngineClient(engine.client.address, "wrong"))
    replica.begin()
    with pytest.raises(AfaError, match=r"status 401.*; check its token"):
        replica.wait_ready(nothing)


def test_nothing_is_left_of_a_server_whose_trainer_is_killed(log: Path) -> None:
    reading, writing = os.pipe()
    trainer = os.fork()
    if trainer == 0:  # a copy of this process, which starts a server and is killed
        replica = own_replica(log)
        replica.begin()
        os.write(writing, str(replica.process._guard.pid).encode())  # type: ignore[union-attr]
        time.sleep(300)
        os._exit(0)
    guard = psutil.Process(int(os.read(reading, 20)))
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not any(
        "EngineCore" in " ".join(command_of(p)) for p in guard.children(True)
    ):
        time.sleep(0.5)
    processes = [guard, *guard.children(recursive=True)]
    assert len(processes) >= 4  # with the core
    os.kill(trainer, signal.SIGKILL)
    os.waitpid(trainer, 0)
    assert all_gone(processes)
