"""A vLLM engine inside this process: the door to vLLM's Python interface, which is imported when the engine begins.

It stands where a fleet of servers stands (`Engines`), so that adapter sync, proof of delivery and generator are the
same for both. On a GPU it sleeps while the trainer takes its step (`rest`): weights go to host memory, the cache is
dropped; the next question wakes it. On a CPU there is nothing to share, and `rest` does nothing.

For one process. Several ranks take servers: an engine of theirs would meddle with the process group of the trainer.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from afa_llm.errors import AfaError
from afa_llm.rollouts.engine_process import CPU_CACHE, LORA_RANKS, EngineLaunch
from afa_llm.rollouts.fleet import Engines
from afa_llm.rollouts.label_scoring import ScoreRequest, Scores, sampling_parameters
from afa_llm.rollouts.replica import Beat

AT_ONCE = 512  # requests handed over between two looks at whether anybody still waits
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else the engine is a process of its own
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else this whole process is tied to some cores
    "VLLM_NO_USAGE_STATS": "1",
}
DEFAULTS = {"VLLM_LOGGING_LEVEL": "ERROR", **CPU_CACHE}


class LocalEngine:
    """One engine in this process. Its methods may be called from several threads; they wait for each other.

    `launch`: as for a server, but for its interpreter, arguments and environment. `memory_share`: of the GPU, for
    weights and cache together.
    """

    def __init__(self, launch: EngineLaunch, memory_share: float = 0.4) -> None:
        self.launch, self.memory_share = launch, memory_share
        self.shares_memory = torch.cuda.is_available()
        self._llm: Any = None
        self._asleep = False
        self._adapters: dict[str, Any] = {}
        self._numbers = 0
        self._lock = threading.RLock()

    def begin(self) -> None:
        """Build the engine; takes as long as loading the model. Raises AfaError where vLLM can't."""
        threads = torch.get_num_threads()
        try:
            with _environment({**{k: v for k, v in DEFAULTS.items() if k not in os.environ}, **ENVIRONMENT}):
                from vllm import LLM

                self._llm = LLM(**_arguments(self.launch, self.memory_share if self.shares_memory else None))
        except Exception as error:  # whatever an engine stumbles over
            self.close()
            raise AfaError(
                f"rollouts.backend = vllm_local: the engine cannot be built: {type(error).__name__}: {error}"
            ) from error
        finally:
            torch.set_num_threads(threads)

    def wait_ready(self, beat: Beat) -> None:
        """It is ready once it has begun."""
        beat()

    def hold(self, adapters: Mapping[str, str], beat: Beat) -> None:
        """It holds exactly these adapters afterwards (name -> folder). Raises AfaError."""
        with self._lock:
            self._wake()
            for name in adapters.keys() - self._adapters.keys():
                beat()
                self._add(name, adapters[name])
            for name in self._adapters.keys() - adapters.keys():
                with _told(f"cannot unload the adapter {name}"):
                    self._llm.llm_engine.remove_lora(self._adapters.pop(name).lora_int_id)

    def score(self, requests: Sequence[ScoreRequest], adapter: str, beat: Beat) -> list[Scores]:
        """Scores in the order of the requests, by the adapter of this name, or by the base where it is empty.

        Raises AfaError where the engine has no such adapter, and whatever `beat` raises.
        """
        prompts = [request.token_ids for request in requests]
        found = self.generate(prompts, [sampling_parameters(request) for request in requests], adapter, beat)
        return [
            {token: float(entry[token].logprob) for token in request.scored_ids}
            for request, output in zip(requests, found, strict=True)
            for entry in [output.outputs[0].logprobs[0]]
        ]

    def each(self) -> dict[str, Engines]:
        """There is one, without an address."""
        return {"": self}

    def rest(self) -> None:
        """Give the GPU's memory to the trainer until the next question. Raises AfaError."""
        with self._lock:
            if self.shares_memory and self._llm is not None and not self._asleep:
                with _told("cannot give memory back"):
                    self._llm.sleep(level=1)
                self._asleep = True

    def close(self) -> None:
        """End the engine and give all memory back; nothing to do where it has ended."""
        with self._lock:
            llm, self._llm = self._llm, None
            self._adapters.clear()
            if llm is not None:
                llm.llm_engine.engine_core.shutdown()
                del llm
                gc.collect()
                if self.shares_memory:
                    torch.cuda.empty_cache()

    def generate(
        self, prompts: Sequence[Sequence[int]], parameters: Sequence[Mapping[str, Any]], adapter: str, beat: Beat
    ) -> list[Any]:
        """vLLM's outputs in the order of the prompts. `parameters`: keywords of its SamplingParams, for each prompt.

        Raises AfaError where the engine has no such adapter or stumbles, and whatever `beat` raises.
        """
        if adapter and adapter not in self._adapters:
            raise AfaError(f"rollouts: the engine does not hold the adapter {adapter}")
        found: list[Any] = []
        with self._lock:
            self._wake()
            for at in range(0, len(prompts), AT_ONCE):
                beat()
                part = [{"prompt_token_ids": list(prompt)} for prompt in prompts[at : at + AT_ONCE]]
                found += self._ask(part, parameters[at : at + AT_ONCE], self._adapters.get(adapter))
        return found

    def _ask(self, prompts: Sequence[Any], parameters: Sequence[Mapping[str, Any]], adapter: Any) -> list[Any]:
        if self._llm is None:
            raise AfaError("rollouts: the engine has ended")
        with _told("failed"):
            sampling = [self._parameters(**values) for values in parameters]
            return list(self._llm.generate(prompts, sampling, use_tqdm=False, lora_request=adapter))

    def _add(self, name: str, folder: str) -> None:
        from vllm.lora.request import LoRARequest

        self._numbers += 1
        request = LoRARequest(name, self._numbers, folder)
        with _told(f"cannot load the adapter {folder}"):
            loaded = self._llm.llm_engine.add_lora(request)
        if not loaded:
            raise AfaError(f"rollouts: the engine did not load the adapter {folder}")
        self._adapters[name] = request

    def _wake(self) -> None:
        if self._asleep and self._llm is not None:
            # The trainer may hold what was the engine's: what it frees, torch keeps for itself.
            with _told(
                f"cannot wake; rollouts.memory_share = {self.memory_share:g} may be too much beside the trainer"
            ):
                self._llm.wake_up()
            self._asleep = False

    @staticmethod
    def _parameters(**values: Any) -> Any:
        from vllm import SamplingParams

        return SamplingParams(detokenize=False, ignore_eos=True, **values)


def _arguments(launch: EngineLaunch, gpu_share: float | None) -> dict[str, Any]:
    """Keywords of vLLM's LLM. `gpu_share`: None on a CPU."""
    # CPU: a seeded draw whose prompt is read in parts ends vLLM 0.32 ("CPU Generator does not use offset"), so no
    # prompt is. Its blocks of 128 tokens would cache no prefix that is shorter; 32 is the least its attention can.
    of_device: dict[str, Any] = (
        {"enable_sleep_mode": True, "gpu_memory_utilization": gpu_share}
        if gpu_share is not None
        else {
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(4096, launch.max_tokens),
            "block_size": 32,
        }
    )
    return {
        "model": launch.model,
        "revision": launch.revision,
        "dtype": launch.dtype,
        "max_model_len": launch.max_tokens,
        "load_format": "safetensors",
        "trust_remote_code": False,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # not the model's own top-p and top-k
        "seed": 0,
        "enable_lora": True,
        "max_lora_rank": next((rank for rank in LORA_RANKS if rank >= launch.lora_rank), launch.lora_rank),
        "max_loras": 2,  # the old version and the new one
        "lora_target_modules": list(launch.lora_modules),
        "enable_prefix_caching": launch.prefix_caching,
        "disable_log_stats": True,
        **of_device,
    }


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever vLLM or CUDA stumbles over in the block, as an AfaError."""
    try:
        yield
    except Exception as error:
        raise AfaError(f"rollouts: the engine {what}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for as long as the block lasts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
