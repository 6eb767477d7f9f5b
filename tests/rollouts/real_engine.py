"""A real vLLM server on the packaged model, and the trainer's side beside it, for the tests that need both."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from afa_llm.config_running import Lora, Model
from afa_llm.models.adapters import attach_lora, load_base, model_location, save_adapter
from afa_llm.models.decoder import Decoder
from afa_llm.records import AnswerWords
from afa_llm.rollouts.delivery import Limits as ProbeLimits
from afa_llm.rollouts.engine_process import EngineLaunch, EngineProcess
from afa_llm.rollouts.engine_service import EngineService
from afa_llm.rollouts.fleet import Fleet
from afa_llm.rollouts.generator import ALONE, TransformersGenerator
from afa_llm.rollouts.replica import Limits, Replica
from afa_llm.rollouts.vllm_client import EngineClient

PYTHON = os.environ.get("AFA_VLLM_PYTHON", sys.executable)
"""The interpreter that has vLLM: this one, or that of another environment."""

SETTINGS = Model(quantization="none", dtype="float32")
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SINGLE = AnswerWords(("bad", "good"), ((500,), (600,)))
SEVERAL = AnswerWords(("bad", "very good", "very bad"), ((500,), (700, 600), (700, 500, 801)))
PATIENCE = Limits(start_seconds=400, request_seconds=60, retries=3, restarts=2, prompts_per_request=8)


def launch(*arguments: str, **environment: str) -> EngineLaunch:
    """The packaged model in float32, as small as an engine gets."""
    quick = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    return EngineLaunch(
        PYTHON, model_location(SETTINGS.path), None, "float32", 256, 8, MODULES, True,
        ("--enforce-eager", *arguments), quick | environment,
    )  # fmt: skip


def own_replica(log: Path, limits: Limits = PATIENCE, tell: Callable[[str], None] = print) -> Replica:
    return Replica(EngineClient(""), EngineProcess(launch(), log), limits, tell)


def foreign_replica(client: EngineClient, limits: Limits = PATIENCE) -> Replica:
    return Replica(client, None, limits, print)


class Side:
    """The trainer's side: the same base with an adapter whose weights can be changed."""

    def __init__(self) -> None:
        base = load_base(SETTINGS, torch.device("cpu"))
        model = attach_lora(base, Lora(rank=8, alpha=16), seed=0, gradient_checkpointing=False)
        self.decoder = Decoder(model, (5,), 3)
        self.generator = TransformersGenerator(self.decoder, 16)

    def move(self, seed: int, size: float = 0.05) -> None:
        """Other adapter weights; size 0 is the base."""
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.decoder.model.named_parameters():
                if "lora_B" in name:
                    weight.copy_(size * torch.randn(weight.shape, generator=draw))

    def save(self, folder: Path) -> None:
        save_adapter(self.decoder.model, folder)


def prompts(count: int = 20, longest: int = 60, seed: int = 3) -> list[list[int]]:
    """Random token ids after BOS, of different lengths."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=draw).tolist()
    return [[1, *torch.randint(10, 4000, (length,), generator=draw).tolist()] for length in lengths]


def connected(fleet: Fleet, side: Side, folder: Path, limits: ProbeLimits | None = None, **parts: Any) -> EngineService:
    """A service over a fleet, ready to deliver."""
    service = EngineService(fleet, ALONE, [0], print)
    service.connect(
        parts.get("trainer", side.generator), side.decoder.base, nullcontext, parts.get("save", side.save), folder,
        prompts(8, seed=9), SINGLE, limits or ProbeLimits(),
    )  # fmt: skip
    return service
