"""One engine kept answering: our own process or the user's, with the adapters it should hold, mended within bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from afa_llm.errors import AfaError
from afa_llm.rollouts.engine_process import EngineProcess
from afa_llm.rollouts.vllm_client import EngineClient, EngineFailureError, EngineRefusalError

Beat = Callable[[], None]
"""Called several times a second while something is waited for; may raise to end the waiting."""

PORT_TAKEN = "ddress already in use"
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Limits:
    """Bounds of patience, from the settings of `rollouts`. `retries`: of one request; `restarts`: of one engine."""

    start_seconds: float = 600.0
    request_seconds: float = 120.0
    retries: int = 3
    restarts: int = 2
    prompts_per_request: int = 64
    requests_at_once: int = 4


class Replica:
    """An engine. `births` counts its starts: who saw a failure says of which birth, so that it is mended once.

    `adapters`: name -> folder of what it should hold; after a restart it gets them again.
    """

    def __init__(
        self, client: EngineClient, process: EngineProcess | None, limits: Limits, tell: Callable[[str], None]
    ):
        self.client, self.process, self.limits, self.tell = client, process, limits, tell
        self.base_model = ""
        self.adapters: dict[str, str] = {}
        self.births = self.restarts = 0
        self.closed = False
        self._ours: set[str] = set()  # names we ever loaded here
        self._mending = threading.Lock()

    def begin(self) -> None:
        """Start our own process; the user's engine runs already."""
        if self.process:
            self.process.start()
            self.client = EngineClient(self.process.address, self.process.token)
        self.births += 1

    def wait_ready(self, beat: Beat) -> None:
        """Until it serves the base. Another taker of our port costs a restart. Raises AfaError."""
        try:
            self._wait(beat)
        except AfaError as error:
            if PORT_TAKEN not in str(error):
                raise
            self._count_restart(str(error))
            self.begin()
            self.wait_ready(beat)

    def reconcile(self) -> None:
        """Load the adapters it should hold and unload those of ours that it should not. Doing it twice does no harm."""
        held = self.client.models()
        for name, folder in self.adapters.items():
            if name not in held:
                self.client.load_adapter(name, folder)
        for name in [name for name in held if name in self._ours and name not in self.adapters]:
            self.client.unload_adapter(name)

    def hold(self, adapters: dict[str, str], beat: Beat) -> None:
        """Make it hold exactly these. Raises AfaError where it refuses, or fails more often than it may."""
        self._ours |= adapters.keys()
        self.adapters = dict(adapters)
        for attempt in range(self.limits.retries + 1):
            birth = self.births
            try:
                return self.reconcile()
            except EngineRefusalError as error:
                raise self._refused(error) from error
            except EngineFailureError as error:
                if attempt == self.limits.retries:
                    raise AfaError(f"rollouts: the adapter cannot be delivered: {error}") from error
                self.mend(birth, error, beat)

    def mend(self, birth: int, failure: EngineFailureError | EngineRefusalError, beat: Beat) -> None:
        """After a failure seen at `birth`: see that it answers and holds its adapters, by a restart if need be.

        Raises AfaError where it may not be restarted once more.
        """
        with self._mending:
            if birth != self.births:
                return
            slow = isinstance(failure, EngineFailureError) and failure.slow
            if self.process and (slow or self.process.ended or not self.client.alive()):
                self._restart(failure, beat)
            elif self.process is None:
                self._wait(beat)
            try:
                self.reconcile()
            except EngineFailureError:
                time.sleep(LOOK_SECONDS)  # the next request finds out
            except EngineRefusalError as error:
                raise self._refused(error) from error

    def close(self) -> None:
        """End our own process, which is not started again; take our adapters from the user's engine."""
        self.closed = True
        if self.process:
            with self._mending:  # a thread that mends gives up first: its caller has left
                self.process.close()
            return
        self.adapters = {}
        try:
            self.reconcile()
        except (EngineFailureError, EngineRefusalError) as error:
            self.tell(f"rollouts: adapters are left in the engine: {error}")

    def _restart(self, failure: Exception, beat: Beat) -> None:
        assert self.process
        if self.closed:
            raise AfaError("rollouts: the engines are closed")
        self._count_restart(f"{failure}{self.process.last_words() if self.process.ended else ''}")
        self.begin()
        self.wait_ready(beat)

    def _count_restart(self, reason: str) -> None:
        self.restarts += 1
        if self.restarts > self.limits.restarts:
            raise AfaError(f"rollouts.restarts = {self.limits.restarts}: the engine failed once more: {reason}")
        self.tell(f"rollouts: the engine is started again ({self.restarts} of {self.limits.restarts}): {reason}")

    def _wait(self, beat: Beat) -> None:
        if self.process:
            self.process.wait_ready(self.client.alive, self.limits.start_seconds, beat)
        else:
            self._wait_for_foreign(beat)
        bases = self._bases(beat)
        wanted = self.process.base_model if self.process else (bases or [""])[0]
        if not wanted:
            raise AfaError(f"rollouts.addresses: the engine at {self.client.address} serves no model")
        if wanted not in bases:
            raise AfaError(f"rollouts: {self.client.address} serves {bases}, not the engine that was started")
        self.base_model = wanted

    def _bases(self, beat: Beat) -> list[str]:
        """Models it serves that are no adapters. Raises AfaError where it does not say, or not in a few tries."""
        for attempt in range(self.limits.retries + 1):
            try:
                return [name for name, parent in self.client.models().items() if not parent]
            except EngineRefusalError as error:
                raise AfaError(f"rollouts: the engine does not say what it serves: {error}; check its token") from error
            except EngineFailureError as error:
                if attempt == self.limits.retries:
                    raise AfaError(f"rollouts: the engine does not say what it serves: {error}") from error
                beat()
                time.sleep(LOOK_SECONDS)
        raise AssertionError("the last try returns or raises")

    def _refused(self, error: EngineRefusalError) -> AfaError:
        advice = (
            f"; start the engine at {self.client.address} with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora, "
            "--max-lora-rank of lora.rank or more, and let it read rollouts.adapter_folder"
        )
        return AfaError(f"rollouts: the engine refuses the adapter: {error}{'' if self.process else advice}")

    def _wait_for_foreign(self, beat: Beat) -> None:
        deadline = time.monotonic() + self.limits.request_seconds
        while illness := self.client.illness():
            if time.monotonic() > deadline:
                raise AfaError(f"rollouts.addresses: no healthy engine answers at {illness}; start it there")
            beat()
            time.sleep(LOOK_SECONDS)
