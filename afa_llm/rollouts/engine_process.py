"""An engine's server process of our own: started, watched, ended. The door to vLLM's server.

It listens on the loopback address only, asks for a random token (handed over by environment, never on a command line)
and serves the base under a name drawn for this process, so that no other server can be mistaken for it. Its output goes
to a log in the run's folder.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from afa_llm.errors import AfaError
from afa_llm.rollouts import engine_guard
from afa_llm.rollouts.engine_log import reason_in

LOOPBACK = "127.0.0.1"
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM reserves room for
CPU_CACHE = {"VLLM_CPU_KVCACHE_SPACE": "1"}
"""GiB for keys and values where vLLM runs on a CPU, unless the environment says otherwise: enough for prompts that are
answered by their next token. By itself vLLM takes 92 % of the machine's memory there, and does not start where anybody
else uses more than the rest."""
LOOK_SECONDS = 0.2
END_SECONDS = engine_guard.GRACE_SECONDS + 10
LAUNCHER_VARIABLES = re.compile(r"(GROUP_|ROLE_|LOCAL_|CROSS_|NODE_)?(RANK|WORLD_SIZE)|LOCAL_SIZE|MASTER_(ADDR|PORT)")


@dataclass(frozen=True)
class EngineLaunch:
    """How to start a server. Producer: assembly. Consumer: EngineProcess.

    `model`: folder or hub name. `max_tokens`: longest prompt with the answer. `lora_modules`: leaf names of the modules
    that adapters change. `arguments` are added at the end, so that they win. `environment` is added to this process's.
    """

    python: str
    model: str
    revision: str | None
    dtype: str
    max_tokens: int
    lora_rank: int
    lora_modules: tuple[str, ...]
    prefix_caching: bool = True
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class EngineProcess:
    """One server. `base_model` is the name under which it serves the base."""

    def __init__(self, launch: EngineLaunch, log: Path) -> None:
        self.launch, self.log = launch, log
        self.token = secrets.token_urlsafe(32)
        self.base_model = ""
        self.port = 0
        self._guard: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # where the newest start begins in the log

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start it, on a free port; `wait_ready` tells when it answers. Raises AfaError without an interpreter."""
        self.close()
        self.port, self.base_model = free_port(), f"base-{secrets.token_hex(8)}"
        guard = [sys.executable, "-I", str(Path(engine_guard.__file__)), str(os.getpid())]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._guard = subprocess.Popen(
                    [*guard, *server_command(self.launch, self.base_model, self.port)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=server_environment(self.launch, self.token),
                    start_new_session=True,
                )
            except OSError as error:
                raise AfaError(f"rollouts: the engine cannot be started: {error}") from error

    def wait_ready(self, answers: Callable[[], bool], limit_seconds: float, beat: Callable[[], None]) -> None:
        """Until `answers()` says yes. Raises AfaError where the process ends or the limit is over.

        `beat` is called several times a second, and may raise.
        """
        deadline = time.monotonic() + limit_seconds
        while not answers():
            if self.ended:
                raise AfaError(f"rollouts: the engine ended while starting{self.last_words()}")
            if time.monotonic() > deadline:
                self.close()
                raise AfaError(
                    f"rollouts.start_seconds = {limit_seconds:g}: the engine does not answer yet; set more, or see why"
                    f"{self.last_words()}"
                )
            beat()
            time.sleep(LOOK_SECONDS)

    @property
    def ended(self) -> bool:
        return self._guard is None or self._guard.poll() is not None

    def close(self) -> None:
        """End it with all its processes; nothing to do where it has ended."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        assert guard.stdin
        guard.stdin.close()
        try:
            guard.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            guard.kill()  # its twin follows it
            guard.wait()

    def last_words(self) -> str:
        """What the log says about an end, as the tail of a message."""
        return (
            f": {reason}\nall of it: {self.log}"
            if (reason := reason_in(self.log, self._log_start))
            else f"; see {self.log}"
        )


def server_command(launch: EngineLaunch, base_model: str, port: int) -> list[str]:
    """The command line. The `vllm` program of the CPU build does not start, its module does."""
    room = next((rank for rank in LORA_RANKS if rank >= launch.lora_rank), launch.lora_rank)
    return [
        *(launch.python, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", launch.model, *(("--revision", launch.revision) if launch.revision else ())),
        *("--served-model-name", base_model, "--host", LOOPBACK, "--port", str(port)),
        *("--dtype", launch.dtype, "--max-model-len", str(launch.max_tokens), "--load-format", "safetensors"),
        *("--generation-config", "vllm", "--seed", "0", "--disable-uvicorn-access-log"),
        # Without the module names LoRA fails together with some log-probabilities. Two: the old one and the new one.
        *("--enable-lora", "--max-lora-rank", str(room), "--max-loras", "2"),
        *("--lora-target-modules", *launch.lora_modules),
        "--enable-prefix-caching" if launch.prefix_caching else "--no-enable-prefix-caching",
        *launch.arguments,
    ]


def server_environment(launch: EngineLaunch, token: str) -> dict[str, str]:
    """This process's environment without what a launcher of ranks put there: the engine is a world of its own."""
    own = {name: value for name, value in os.environ.items() if not LAUNCHER_VARIABLES.fullmatch(name)}
    ours = {"VLLM_API_KEY": token, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_NO_USAGE_STATS": "1"}
    return CPU_CACHE | own | ours | dict(launch.environment)


def free_port() -> int:
    """A TCP port of the loopback address that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
