"""Settings of how a run is carried out: model and adapter, training, and who answers prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from afa_llm.config_section import MOST, Section, at_home

POCKET = "builtin:pocket"


class Run(Section):
    name: str = Field(
        "run",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="folder of the run under output_dir: letters, digits, . _ -",
    )
    output_dir: str = Field("runs", description="folder that holds all runs")
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of LoRA, its dropout, adversary, masks and the order of reviews"
    )
    threads: int = Field(1, ge=1, le=1024, description="CPU threads of each process")
    overwrite: bool = Field(False, description="replace an earlier run of the same name; else refuse")
    resume: bool = Field(
        False,
        description="continue a run of the same name from its newest good checkpoint, whatever run.overwrite says",
    )

    _home = field_validator("output_dir")(at_home)


class Model(Section):
    path: str = Field(POCKET, min_length=1, description="hub name, local folder, or builtin:pocket")
    revision: str | None = Field(None, description="hub revision (commit, tag or branch)")
    quantization: Literal["nf4", "int8", "none"] = Field("nf4", description="storage of the frozen base weights")
    double_quantization: bool = Field(True, description="nf4 only: quantise the scales too")
    quant_storage: Literal["uint8", "bfloat16", "float32"] = Field(
        "bfloat16", description="nf4 only: tensor type that holds the packed weights; a float type is needed for ZeRO-3"
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="compute type, and storage where unquantised; auto: bfloat16 where every rank has it in hardware, "
        "else float32",
    )
    attention: Literal["sdpa", "eager"] = Field(
        "sdpa", description="kernel below the attention capture; eager is chosen by itself for soft-capped families"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in backward: less memory, slower")

    _home = field_validator("path")(at_home)


class Lora(Section):
    rank: int = Field(16, ge=1, le=65536, description="rank of the adapter matrices")
    alpha: float = Field(32.0, gt=0, description="the adapter is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="all-linear, or names of linear modules")


class Training(Section):
    epochs: float = Field(1.0, gt=0, le=MOST, description="passes over the training reviews")
    max_steps: int | None = Field(
        None, ge=1, le=MOST, description="at most so many optimizer steps; none: by epochs alone"
    )
    reviews_per_step: int = Field(32, ge=1, le=MOST, description="reviews in one optimizer step, over all ranks")
    micro_batch_size: int = Field(32, ge=1, le=MOST, description="reviews of one forward pass on one rank")
    learning_rate: float = Field(5e-4, gt=0, le=1e6, description="peak step size of AdamW")
    weight_decay: float = Field(0.0, ge=0, description="decay of AdamW on adapter matrices")
    betas: tuple[float, float] = Field((0.9, 0.95), description="moment decay rates of AdamW")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="share of steps of linear warm-up")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="step size after warm-up")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient norm above which it is scaled down")
    engine: Literal["plain", "deepspeed"] = Field("plain", description="one process, or DeepSpeed under its launcher")
    zero_stage: Literal[0, 1, 2, 3] = Field(0, description="deepspeed only: what is sharded over ranks")
    deepspeed_file: str | None = Field(None, description="deepspeed only: JSON merged under our settings")
    checkpoint_every: int = Field(100, ge=0, le=MOST, description="steps between checkpoints; 0: only at the end")
    keep_checkpoints: int = Field(2, ge=1, le=MOST, description="newest checkpoints kept, beside the best")
    validate_every: int = Field(
        0, ge=0, le=MOST, description="steps between losses on data.validation; 0: only at the end. The best is kept"
    )
    adapter: Literal["last", "best"] = Field(
        "last", description="which weights are the result: of the last step, or of the best validation loss"
    )
    log_every: int = Field(1, ge=1, le=MOST, description="steps between lines of metrics.jsonl")
    max_skipped_steps: int = Field(5, ge=0, le=MOST, description="non-finite steps in a row before the run stops")
    timeout_minutes: float = Field(
        30.0,
        gt=0,
        le=1_000_000,
        description="longest time in which no rank moves before the job ends, naming who is behind",
    )
    silence_seconds: float = Field(
        60.0, ge=5, le=1_000_000, description="a rank not heard of for this long (dead, stopped, cut off) ends the job"
    )

    _home = field_validator("deepspeed_file")(at_home)


class Rollouts(Section):
    backend: Literal["transformers", "vllm_server", "vllm_local"] = Field(
        "transformers",
        description="who answers prompts: the decoder, a vLLM server, or a vLLM engine in this process",
    )
    memory_share: float = Field(
        0.4, gt=0, lt=1, description="vllm_local on a GPU: part of its memory for the engine, given back in each step"
    )
    reader: Literal["tuned", "base"] = Field(
        "base", description="weights that read the masked views for adversary and reward: tuned, or the frozen base"
    )
    vllm_python: str | None = Field(None, description="interpreter that has vLLM, for servers of ours; none: this one")
    serve: Literal["original", "dequantised"] = Field(
        "original", description="base in servers of ours: model.path itself, or the 4-bit weights of training unpacked"
    )
    replicas: int = Field(1, ge=1, le=1024, description="servers of ours on each node that has one")
    one_per_node: bool = Field(False, description="servers of ours on every node, or on that of rank 0 alone")
    devices: tuple[str, ...] = Field((), description="CUDA_VISIBLE_DEVICES of each of the replicas; empty: inherited")
    server_arguments: tuple[str, ...] = Field(
        (), description="further arguments of servers of ours, as vLLM reads them"
    )
    prefix_caching: bool = Field(
        True, description="keep what prompts begin with in the engine; the answers are the same"
    )
    addresses: tuple[str, ...] = Field(
        (), description="vLLM 0.32 servers that run already, http://host:port; empty: ours"
    )
    token_variable: str | None = Field(
        "AFA_ENGINE_TOKEN", description="environment variable with the token of engines at addresses; null: no token"
    )
    adapter_folder: str | None = Field(
        None, description="where engines at addresses can read adapters; none: in the run's folder"
    )
    prompts_per_request: int = Field(64, ge=1, le=1024, description="prompts that one request asks")
    requests_at_once: int = Field(4, ge=1, le=1024, description="requests that are open at each engine")
    start_seconds: float = Field(
        900.0, gt=0, le=1_000_000, description="longest time in which a server of ours must answer"
    )
    request_seconds: float = Field(
        120.0, gt=0, le=1_000_000, description="longest time of one request; a slower engine counts as hung"
    )
    retries: int = Field(3, ge=0, le=MOST, description="further tries of one request")
    restarts: int = Field(2, ge=0, le=MOST, description="times that each server of ours is started again")
    sync_every: int = Field(
        1, ge=1, le=MOST, description="reader=tuned: optimizer steps between two versions of the adapter in the engine"
    )
    staleness: int = Field(
        0, ge=0, le=MOST, description="steps by which an answering adapter may be older; 0: never older"
    )
    overlap: bool = Field(
        True, description="the engine answers while the trainer reads views; the numbers are the same"
    )
    probe_prompts: int = Field(
        16, ge=1, le=MOST, description="prompts answered on both sides after each sync, as a proof"
    )
    probe_warn: float = Field(0.005, ge=0, description="mean |Δp| of the two sides from which to warn")
    probe_fail: float = Field(0.01, gt=0, description="mean |Δp| of the two sides from which to end the run")

    _home = field_validator("adapter_folder", "vllm_python")(at_home)
