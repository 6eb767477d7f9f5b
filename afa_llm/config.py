"""Every setting of a run: frozen, typed, documented, checked before torch is imported.

`afa config` prints the resolved values. Loading (YAML, overrides, messages) is in config_loading.py.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

POCKET = "builtin:pocket"


class Section(BaseModel):
    """A group of settings. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Run(Section):
    name: str = Field(
        "run",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="folder of the run under output_dir: letters, digits, . _ -",
    )
    output_dir: str = Field("runs", description="folder that holds all runs")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of LoRA, adversary, masks and the order of reviews")
    threads: int = Field(1, ge=1, description="CPU threads of each process")
    overwrite: bool = Field(False, description="replace an earlier run of the same name; else refuse")
    resume: bool = Field(False, description="continue a run of the same name from its newest good checkpoint")


class Model(Section):
    path: str = Field(POCKET, description="hub name, local folder, or builtin:pocket")
    revision: str | None = Field(None, description="hub revision (commit, tag or branch)")
    quantization: Literal["nf4", "int8", "none"] = Field("nf4", description="storage of the frozen base weights")
    double_quantization: bool = Field(True, description="nf4 only: quantise the scales too")
    quant_storage: Literal["uint8", "bfloat16", "float32"] = Field(
        "bfloat16", description="nf4 only: tensor type that holds the packed weights; a float type is needed for ZeRO-3"
    )
    dtype: Literal["bfloat16", "float32"] = Field("bfloat16", description="compute type, and storage where unquantised")
    attention: Literal["sdpa", "eager"] = Field(
        "sdpa", description="kernel below the attention capture; eager is chosen by itself for soft-capped families"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in backward: less memory, slower")


class Lora(Section):
    rank: int = Field(16, ge=1, description="rank of the adapter matrices")
    alpha: float = Field(32.0, gt=0, description="the adapter is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="all-linear, or names of linear modules")


class Spurious(Section):
    """A word put into reviews that goes with one label without meaning it (a shortcut, see data/spurious.py)."""

    token: str = Field("honestly", pattern=r"^\S+$", description="the word, without white space")
    label: str = Field("positive", description="label that it goes with, a name of data.labels")
    correlation: float = Field(
        0.9, ge=-1, le=1, description="share of reviews with the word: of this label less that of the others"
    )
    place: Literal["start", "end", "random"] = Field("random", description="where among the review's words it stands")


class Source(Section):
    """One data set: a hub name or a local jsonl/csv/parquet file, and how its columns map."""

    name: str = Field("", description="name in reports; empty: last part of path")
    path: str = Field(
        "builtin:planted",
        description="suite:<name> (see data/suites.py), hub name, local .jsonl/.csv/.parquet (.gz too), "
        "builtin:planted, or builtin:checklist",
    )
    subset: str | None = Field(None, description="hub configuration name, such as sst2 of glue")
    split: str = Field("train", description="split name, or train/validation/test of the builtin data")
    revision: str | None = Field(None, description="hub revision")
    text_column: str = Field("text", description="column with the review")
    label_column: str = Field("label", description="column with the label")
    id_column: str | None = Field(None, description="column with a stable id; none: the row number")
    group_column: str | None = Field(None, description="column that names a subpopulation, for worst-group accuracy")
    pair_column: str | None = Field(
        None, description="column that joins reviews which belong together, such as an original and its edits"
    )
    side_column: str | None = Field(
        None, description="column that says what a review is in its pair, such as original or edited"
    )
    where: dict[str, tuple[str | int | float | bool, ...]] = Field(
        default={}, description="column -> values: rows that have others are left out, and counted"
    )
    exclude_ids: str | None = Field(
        None, description="text file with an id a line: these rows are left out, and counted"
    )
    words_column: str | None = Field(None, description="column with the review's words (list of strings), if given")
    rationale_column: str | None = Field(
        None, description="column with a number per word of words_column: how decisive it is (0..1), or a class"
    )
    rationale_neutral: float | None = Field(
        None, description="if set, a word is decisive where rationale_column differs from this value (SST: 2)"
    )
    rationale_span_column: str | None = Field(
        None, description="column with [start, end] or a list of them: decisive characters of the text"
    )
    spurious: Spurious | None = Field(None, description="a shortcut put into the reviews; none: they stay as they are")
    max_samples: int | None = Field(
        None, ge=1, description="use this many rows, drawn evenly by seed (whole pairs, at most so many); none: all"
    )

    @property
    def title(self) -> str:
        if self.name:
            return self.name
        stem = self.path.removeprefix("builtin:").removeprefix("suite:").rstrip("/").split("/")[-1].split(".")[0]
        return f"{stem}_{self.split}"


class Data(Section):
    train: Source = Field(default_factory=lambda: Source(split="train"), description="reviews to train on")
    evaluation: tuple[Source, ...] = Field(
        default_factory=lambda: (Source(split="validation"),), description="data sets measured before and after"
    )
    validation: Source | None = Field(
        None, description="reviews for training.adapter=best: neither trained on nor reported"
    )
    suites_dir: str | None = Field(
        None, description="folder with local data for suite:<name>; none: the environment variable AFA_DATA"
    )
    labels: dict[str, tuple[str | int | float | bool, ...]] = Field(
        default={"negative": (0, "negative", "neg"), "positive": (1, "positive", "pos")},
        description="label name -> raw values that mean it; the order is the order of classes",
    )
    max_tokens: int = Field(512, ge=8, description="longest prompt, in tokens of the model")
    too_long: Literal["quarantine", "truncate"] = Field(
        "quarantine", description="what happens to a longer review: set aside, or its last words cut"
    )
    max_bad_rows: int | None = Field(None, ge=0, description="stop when more rows than this are bad; none: 10 percent")
    duplicates_across: Literal["warn", "error", "ignore"] = Field(
        "warn", description="reviews of an evaluation set that stand in the training set too"
    )


class Prompts(Section):
    file: str = Field("builtin:sentiment", description="YAML with templates and answer words, or builtin:sentiment")
    train: str = Field("review_sentiment", description="template to train with")
    evaluation: tuple[str, ...] = Field(
        ("review_sentiment", "overall_it_was", "is_this_review"), description="templates to evaluate with"
    )
    chat: Literal["auto", "always", "never"] = Field(
        "auto", description="dress the prompt in the tokenizer's chat template; auto: where it has one"
    )
    demonstrations: int = Field(
        0, ge=0, description="answered training reviews before each review (few-shot), drawn by seed, labels balanced"
    )
    demonstration_words: int = Field(60, ge=1, description="longest review that is drawn as a demonstration, in words")


class Attention(Section):
    layers: Literal["all", "last_half", "last_third"] | tuple[int, ...] = Field(
        "last_half", description="layers whose readout row makes the focus; negative numbers count from the end"
    )


class Infill(Section):
    """masking.view=infill only: how words are found that stand in for hidden ones."""

    candidates: int = Field(
        4, ge=1, description="proposals for each gap, one chosen by how well the text goes on; 1: the first one stands"
    )
    temperature: float = Field(1.0, gt=0, description="of the proposals; no top-p, no top-k")
    lookahead: int = Field(16, ge=1, description="tokens after a gap that judge the proposals, up to the next gap")


class Masking(Section):
    direction: Literal["unattended", "attended", "both", "random"] = Field(
        "both", description="which words the policy prefers to hide; random ignores the focus (a control)"
    )
    rate: float = Field(0.2, gt=0, lt=1, description="share of a review's words that one mask hides (rounded up)")
    masks_per_review: int = Field(4, ge=1, description="masks drawn for each review in a round (K)")
    temperature: float = Field(1.0, gt=0, description="scores are ± log focus / temperature")
    view: Literal["block", "replace", "delete", "infill"] = Field(
        "block",
        description="how a word is hidden: its keys blocked, fillers for it, cut out, or other words in its place",
    )
    fillers: tuple[str, ...] = Field(
        (" _",), min_length=1, description="replace only: texts whose tokens stand in; drawn word by word where several"
    )
    infill: Infill = Field(default_factory=Infill, description="infill only: how the other words are found")


class Adversary(Section):
    features: tuple[Literal["hidden", "labels", "focus"], ...] = Field(
        ("hidden", "labels", "focus"), min_length=1, description="what the adversary sees of a view"
    )
    against: Literal["clean", "random"] = Field(
        "clean", description="what it tells a policy mask from: the clean view, or a random mask of the same size"
    )
    width: int = Field(64, ge=1, description="hidden units")
    learning_rate: float = Field(1e-3, gt=0, description="step size of its AdamW")
    weight_decay: float = Field(0.01, ge=0, description="decay of its AdamW")
    steps_per_round: int = Field(2, ge=0, description="its updates in each round")
    spectral_norm: bool = Field(True, description="bound the Lipschitz constant of its layers")
    r1: float = Field(0.0, ge=0, description="weight of the gradient penalty on its input")
    replay: int = Field(4, ge=0, description="older rounds whose views are kept for its updates")
    warmup_rounds: int = Field(8, ge=0, description="rounds in which it learns while the policy gets no feedback")
    auroc_high: float = Field(0.98, gt=0.5, le=1, description="alarm above this held-out AUROC: reward saturates")
    auroc_low: float = Field(0.52, ge=0, lt=1, description="alarm below this held-out AUROC: reward is noise")


class Reward(Section):
    source: Literal["adversary", "probability_drop"] = Field(
        "adversary", description="adversary: log P(detected); probability_drop: the fall of log p(label) alone"
    )
    label_weight: float = Field(0.5, ge=0, description="η: weight of the label-aware part beside the adversary's")
    shuffle: bool = Field(False, description="control: rewards permuted over the masks of the round")


class Objective(Section):
    task_weight: float = Field(1.0, ge=0, description="weight of the cross-entropy on the label's answer")
    task_scope: Literal["vocabulary", "labels"] = Field(
        "labels", description="cross-entropy over the whole vocabulary, or between the answers of the labels"
    )
    policy_gradient_weight: float = Field(0.2, ge=0, description="λ: weight of the policy gradient of the masks")
    entropy_weight: float = Field(0.0, ge=0, description="β: reward for a spread focus")
    kl_weight: float = Field(0.0, ge=0, description="κ: KL(base ‖ tuned) of the next token on the clean prompt")
    masked_task_weight: float = Field(0.0, ge=0, description="weight of the cross-entropy on one masked view")
    masked_base_weight: float = Field(
        0.0, ge=0, description="weight of KL(base ‖ tuned) between the labels' answers on one masked view"
    )
    shown_task_weight: float = Field(
        0.0, ge=0, description="weight of the cross-entropy where only the words of one attended mask are shown"
    )
    self_supervised_weight: float = Field(
        0.0,
        ge=0,
        description="γ of the rival: attention towards words that made answers right (method/self_supervision.py)",
    )
    self_supervised_rounds: int = Field(5, ge=1, description="words of a review that the rival mines, one a round")
    self_supervised_entropy: float = Field(
        3.0, gt=0, description="the rival takes a word where the entropy of the focus is under this, in nats"
    )
    group_floor: float = Field(1e-4, ge=0, description="groups whose rewards differ by less (std) are skipped")


class Training(Section):
    epochs: float = Field(1.0, gt=0, description="passes over the training reviews")
    max_steps: int | None = Field(None, ge=1, description="optimizer steps; none: by epochs")
    reviews_per_step: int = Field(32, ge=1, description="reviews in one optimizer step, over all ranks")
    micro_batch_size: int = Field(32, ge=1, description="reviews of one forward pass on one rank")
    learning_rate: float = Field(5e-4, gt=0, description="peak step size of AdamW")
    weight_decay: float = Field(0.0, ge=0, description="decay of AdamW on adapter matrices")
    betas: tuple[float, float] = Field((0.9, 0.95), description="moment decay rates of AdamW")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="share of steps of linear warm-up")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="step size after warm-up")
    max_grad_norm: float = Field(1.0, gt=0, description="gradient norm above which it is scaled down")
    engine: Literal["plain", "deepspeed"] = Field("plain", description="one process, or DeepSpeed under its launcher")
    zero_stage: Literal[0, 1, 2, 3] = Field(0, description="deepspeed only: what is sharded over ranks")
    deepspeed_file: str | None = Field(None, description="deepspeed only: JSON merged under our settings")
    checkpoint_every: int = Field(100, ge=0, description="steps between checkpoints; 0: only at the end")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept, beside the best")
    validate_every: int = Field(
        0, ge=0, description="steps between losses on data.validation; 0: only at the end. The best is kept"
    )
    adapter: Literal["last", "best"] = Field(
        "last", description="which weights are the result: of the last step, or of the best validation loss"
    )
    log_every: int = Field(1, ge=1, description="steps between lines of metrics.jsonl")
    max_skipped_steps: int = Field(5, ge=0, description="non-finite steps in a row before the run stops")
    timeout_minutes: float = Field(
        30.0, gt=0, description="longest time in which no rank moves before the job ends, naming who is behind"
    )
    silence_seconds: float = Field(
        60.0, ge=5, description="a rank not heard of for this long (dead, stopped, cut off) ends the job"
    )


class Rollouts(Section):
    backend: Literal["transformers", "vllm_server", "vllm_local"] = Field(
        "transformers",
        description="who answers prompts: the decoder, a vLLM server, or a vLLM engine in this process",
    )
    memory_share: float = Field(
        0.4, gt=0, lt=1, description="vllm_local on a GPU: part of its memory for the engine, given back in each step"
    )
    reader: Literal["tuned", "base"] = Field(
        "tuned", description="weights that read the masked views for adversary and reward: tuned, or the frozen base"
    )
    vllm_python: str | None = Field(None, description="interpreter that has vLLM, for servers of ours; none: this one")
    serve: Literal["original", "dequantised"] = Field(
        "original", description="base in servers of ours: model.path itself, or the 4-bit weights of training unpacked"
    )
    replicas: int = Field(1, ge=1, description="servers of ours on each node that has one")
    one_per_node: bool = Field(False, description="servers of ours on every node, or on that of rank 0 alone")
    devices: tuple[str, ...] = Field((), description="CUDA_VISIBLE_DEVICES of each of the replicas; empty: inherited")
    server_arguments: tuple[str, ...] = Field(
        (), description="further arguments of servers of ours, as vLLM reads them"
    )
    prefix_caching: bool = Field(
        True, description="keep what prompts begin with in the engine; the answers are the same"
    )
    addresses: tuple[str, ...] = Field((), description="engines that run already, http://host:port; empty: ours")
    token_variable: str | None = Field(
        "AFA_ENGINE_TOKEN", description="environment variable with the token of engines at addresses; null: no token"
    )
    adapter_folder: str | None = Field(
        None, description="where engines at addresses can read adapters; none: in the run's folder"
    )
    prompts_per_request: int = Field(64, ge=1, le=1024, description="prompts that one request asks")
    requests_at_once: int = Field(4, ge=1, description="requests that are open at each engine")
    start_seconds: float = Field(900.0, gt=0, description="longest time in which a server of ours must answer")
    request_seconds: float = Field(
        120.0, gt=0, description="longest time of one request; a slower engine counts as hung"
    )
    retries: int = Field(3, ge=0, description="further tries of one request")
    restarts: int = Field(2, ge=0, description="times that each server of ours is started again")
    sync_every: int = Field(1, ge=1, description="optimizer steps between two versions of the adapter in the engine")
    staleness: int = Field(0, ge=0, description="steps by which an answering adapter may be older; 0: never older")
    overlap: bool = Field(
        True, description="the engine answers while the trainer reads views; the numbers are the same"
    )
    probe_prompts: int = Field(16, ge=1, description="prompts answered on both sides after each sync, as a proof")
    probe_warn: float = Field(0.005, ge=0, description="mean |Δp| of the two sides from which to warn")
    probe_fail: float = Field(0.01, gt=0, description="mean |Δp| of the two sides from which to end the run")


class Evaluation(Section):
    batch_size: int = Field(64, ge=1, description="prompts of one forward pass")
    calibrations: tuple[Literal["none", "contextual", "domain", "batch"], ...] = Field(
        ("none", "contextual", "domain", "batch"), min_length=1, description="ways to score the answers"
    )
    headline_calibration: Literal["none", "contextual", "domain", "batch"] = Field(
        "none", description="the one that headlines compare"
    )
    bootstrap_samples: int = Field(2000, ge=100, description="resamples of the paired bootstrap")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="level of all intervals")
    focus_samples: int = Field(200, ge=0, description="reviews of each data set for focus quality; 0: none")
    focus_fractions: tuple[float, ...] = Field((0.01, 0.05, 0.1, 0.2, 0.5), description="shares of words removed")
    rare_quantile: float = Field(0.25, gt=0, lt=1, description="words under this training-frequency quantile are rare")
    through_engine: bool = Field(
        False, description="prompts of before and after are answered by the engine of rollouts.backend too"
    )
    lexicon: str | None = Field(
        None, description="text file with an opinion word a line: decisive words of reviews without a rationale"
    )
    leave_one_out_samples: int = Field(
        50, ge=0, description="reviews of each data set whose words are hidden one by one; 0: none"
    )
    leave_one_out_words: int = Field(60, ge=2, description="longer reviews are not hidden word by word")


class Config(Section):
    run: Run = Field(default_factory=Run, description="name, place, seed")
    model: Model = Field(default_factory=Model, description="the decoder and how it is stored")
    lora: Lora = Field(default_factory=Lora, description="the trained adapter")
    data: Data = Field(default_factory=Data, description="reviews and labels")
    prompts: Prompts = Field(default_factory=Prompts, description="templates and answer words")
    attention: Attention = Field(default_factory=Attention, description="where the focus is read")
    masking: Masking = Field(default_factory=Masking, description="the masking policy")
    adversary: Adversary = Field(default_factory=Adversary, description="the discriminator head")
    reward: Reward = Field(default_factory=Reward, description="what the masks earn")
    objective: Objective = Field(default_factory=Objective, description="weights of the loss")
    training: Training = Field(default_factory=Training, description="optimizer, engine, checkpoints")
    rollouts: Rollouts = Field(default_factory=Rollouts, description="the generator that answers prompts")
    evaluation: Evaluation = Field(default_factory=Evaluation, description="what is measured")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        from afa_llm.config_checks import contradictions

        found = contradictions(self)
        if found:
            raise ValueError("\n".join(found))
        return self
