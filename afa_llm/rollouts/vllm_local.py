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
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from afa_llm.errors import AfaError
from afa_llm.rollouts.engine_process import CPU_CACHE, LORA_RANKS, EngineLaunch
from afa_llm.rollouts.fleet import Engines
from afa_llm.rollouts.label_scoring import ScoreRequest, Scores, sampling_parameters
from afa_llm.rollouts.proposals import Continuation, Draw
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
        if adapter and adapter not in self._adapters:
            raise AfaError(f"rollouts: the engine does not hold the adapter {adapter}")
        prompts = [request.token_ids for request in requests]
        parameters = [self._parameters(**sampling_parameters(request)) for request in requests]
        found = self._generate(prompts, parameters, self._adapters.get(adapter), beat)
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

    def draw(self, asked: Sequence[Draw], beat: Beat) -> list[tuple[int, ...]]:
        """As in `Proposer`, by the base. Bits are the engine's own: the same for a seed, other than those of others."""
        possible = [draw for draw in asked if draw.possible]
        parameters = [self._parameters(**_draw_parameters(draw)) for draw in possible]
        found = iter(self._generate([draw.prefix for draw in possible], parameters, None, beat))
        return [draw.kept(next(found).outputs[0].token_ids) if draw.possible else () for draw in asked]

    def continue_(self, asked: Sequence[Continuation], beat: Beat) -> list[float]:
        """As `Proposer.score`, by the base. vLLM reads no prefix cache where it scores a prompt, so none is stale."""
        texts = [each.prefix + each.token_ids for each in asked]
        parameters = [self._parameters(max_tokens=1, temperature=0.0, prompt_logprobs=0) for _ in asked]
        found = self._generate(texts, parameters, None, beat)
        return [
            sum(output.prompt_logprobs[at][text[at]].logprob for at in range(len(each.prefix), len(text)))
            for each, text, output in zip(asked, texts, found, strict=True)
        ]

    def _generate(
        self, prompts: Sequence[Sequence[int]], parameters: Sequence[Any], adapter: Any, beat: Beat
    ) -> list[Any]:
        found: list[Any] = []
        with self._lock:
            self._wake()
            for at in range(0, len(prompts), AT_ONCE):
                beat()
                part = [{"prompt_token_ids": list(prompt)} for prompt in prompts[at : at + AT_ONCE]]
                found += self._ask(part, parameters[at : at + AT_ONCE], adapter)
        return found

    def _ask(self, prompts: Sequence[Any], parameters: Sequence[Any], adapter: Any) -> list[Any]:
        if self._llm is None:
            raise AfaError("rollouts: the engine has ended")
        with _told("failed"):
            return list(self._llm.generate(prompts, list(parameters), use_tqdm=False, lora_request=adapter))

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


@dataclass(frozen=True)
class LocalProposer:
    """The engine as who proposes words; see `Proposer`. Raises AfaError, on this rank alone, and what `beat` raises."""

    engine: LocalEngine
    beat: Beat

    def draw(self, asked: Sequence[Draw]) -> list[tuple[int, ...]]:
        return self.engine.draw(asked, self.beat)

    def score(self, asked: Sequence[Continuation]) -> list[float]:
        return self.engine.continue_(asked, self.beat)


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


def _draw_parameters(draw: Draw) -> dict[str, Any]:
    found: dict[str, Any] = {
        "max_tokens": draw.tokens,
        "temperature": draw.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "seed": draw.seed,
    }
    if draw.allowed is not None:
        tokens = _in_order(draw.allowed)
        at = bisect_left(tokens, draw.banned) if draw.banned in draw.allowed else len(tokens)
        found["allowed_token_ids"] = [*tokens[:at], *tokens[at + 1 :]]
    elif draw.banned is not None:
        found["logit_bias"] = {draw.banned: -100.0}
    return found


@lru_cache(maxsize=16)
def _in_order(tokens: frozenset[int]) -> tuple[int, ...]:
    """Half a vocabulary, that of many draws: sorted once."""
    return tuple(sorted(tokens))


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
