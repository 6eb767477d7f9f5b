"""Settings that are fine alone and wrong together: one line each, with the field, the value and the fix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from afa_llm.config_texts import not_unicode, unreplaced_variables

if TYPE_CHECKING:
    from afa_llm.config import Config
    from afa_llm.config_data import Source


def contradictions(config: Config) -> list[str]:
    """All contradictions of a configuration, each `field = value: why; fix`. Empty where there are none."""
    training = (_model, _masks, _adversary, _optimizer, _engine, _quantization, _validation, _rollouts)
    checks = (*training, _labels, _spurious, _pairs, _evaluation, not_unicode, unreplaced_variables)
    return [message for check in checks for message in check(config)]


def _model(config: Config) -> list[str]:
    found = []
    if config.attention.layers == ():
        found.append("attention.layers = []: the focus is read in one layer at least; name one, or set last_half")
    if config.lora.target_modules == ():
        found.append("lora.target_modules = []: nothing would be trained; name modules, or set all-linear")
    return found


def _masks(config: Config) -> list[str]:
    masking, objective, found = config.masking, config.objective, []
    feedback = objective.policy_gradient_weight > 0
    if masking.direction == "both" and masking.masks_per_review % 2:
        found.append(
            f"masking.masks_per_review = {masking.masks_per_review}: direction both needs half of the masks each way; "
            "set an even number"
        )
    least = 4 if masking.direction == "both" else 2
    if feedback and masking.masks_per_review < least:
        found.append(
            f"masking.masks_per_review = {masking.masks_per_review}: the leave-one-out baseline needs at least {least} "
            f"with direction {masking.direction}; set masking.masks_per_review={least}"
        )
    if feedback and masking.direction == "random":
        found.append(
            "masking.direction = random: such masks carry no policy gradient; set objective.policy_gradient_weight=0 "
            "or another direction"
        )
    if objective.shown_task_weight > 0 and masking.direction not in ("attended", "both"):
        found.append(
            f"objective.shown_task_weight = {objective.shown_task_weight}: shows the words of an attended mask, and "
            f"masking.direction = {masking.direction} draws none; set masking.direction=attended"
        )
    if objective.masked_rate is not None and objective.masked_by != "random":
        found.append(
            f"objective.masked_rate = {objective.masked_rate}: the size of a random mask, and objective.masked_by = "
            f"{objective.masked_by} takes the policy's, of masking.rate; set objective.masked_by=random"
        )
    if feedback and config.reward.source == "adversary" and config.adversary.steps_per_round == 0:
        found.append(
            "adversary.steps_per_round = 0: an adversary that never learns gives noise; set 1 or more, or "
            "reward.source=probability_drop"
        )
    if masking.view == "infill" and config.training.zero_stage == 3:
        found.append(
            "masking.view = infill: under ZeRO-3 all ranks must make the same passes, but finding words takes some of "
            "them more; set training.zero_stage=2, or masking.view=replace"
        )
    return found


def _adversary(config: Config) -> list[str]:
    adversary = config.adversary
    if adversary.auroc_low < adversary.auroc_high:
        return []
    return [
        f"adversary.auroc_low = {adversary.auroc_low}: not below adversary.auroc_high = {adversary.auroc_high}, every "
        "round would alarm; set a lower one"
    ]


def _labels(config: Config) -> list[str]:
    found: list[str] = []
    seen: dict[str, str] = {}
    if len(config.data.labels) < 2:
        found.append(f"data.labels = {list(config.data.labels)}: classification needs two labels or more; add one")
    for name, values in config.data.labels.items():
        if not values:
            found.append(f"data.labels.{name} = []: no raw value means this label; list at least one")
        for value in values:
            if str(value) in seen and seen[str(value)] != name:
                found.append(
                    f"data.labels.{name} = {value!r}: the same raw value means {seen[str(value)]!r} too; "
                    "keep it under one label"
                )
            seen[str(value)] = name
    return found


def _optimizer(config: Config) -> list[str]:
    betas = config.training.betas
    if all(0 <= beta < 1 for beta in betas):
        return []
    return [f"training.betas = {list(betas)}: decay rates are at least 0 and below 1; such as [0.9, 0.95]"]


def _engine(config: Config) -> list[str]:
    training, found = config.training, []
    if training.engine == "plain" and training.zero_stage > 0:
        found.append(
            f"training.zero_stage = {training.zero_stage}: the plain engine is a single process and shards nothing; "
            "set training.engine=deepspeed (and start with the deepspeed launcher) or training.zero_stage=0"
        )
    if training.engine == "plain" and training.deepspeed_file:
        found.append(
            f"training.deepspeed_file = {training.deepspeed_file}: the plain engine reads no DeepSpeed file; "
            "set training.engine=deepspeed or leave it out"
        )
    return found


def _quantization(config: Config) -> list[str]:
    model, training, found = config.model, config.training, []
    if training.zero_stage == 3 and model.quantization == "nf4" and model.quant_storage == "uint8":
        found.append("model.quant_storage = uint8: ZeRO-3 shards float tensors only; set model.quant_storage=bfloat16")
    return found


def _validation(config: Config) -> list[str]:
    training = config.training
    if config.data.validation is not None:
        return []
    found = []
    if training.adapter == "best":
        found.append("training.adapter = best: there is no data to judge by; set data.validation.path, or adapter=last")
    if training.validate_every > 0:
        found.append(
            f"training.validate_every = {training.validate_every}: there is no data to validate on; set "
            "data.validation.path, or leave it out"
        )
    return found


def _evaluation(config: Config) -> list[str]:
    evaluation, found = config.evaluation, []
    if evaluation.headline_calibration not in evaluation.calibrations:
        found.append(
            f"evaluation.headline_calibration = {evaluation.headline_calibration}: not among evaluation.calibrations "
            f"{list(evaluation.calibrations)}; add it there or choose one of them"
        )
    if any(not 0 < fraction < 1 for fraction in evaluation.focus_fractions):
        found.append(
            f"evaluation.focus_fractions = {list(evaluation.focus_fractions)}: shares of words lie between 0 and 1"
        )
    listed: dict[str, Sequence[Any]] = {
        "prompts.evaluation": config.prompts.evaluation,
        "evaluation.calibrations": evaluation.calibrations,
        "evaluation.focus_fractions": evaluation.focus_fractions,
    }
    for setting, entries in listed.items():
        for entry in sorted({each for each in entries if entries.count(each) > 1}):
            found.append(f"{setting} = {list(entries)}: names {entry!r} twice; leave one out")
    titles = [source.title for source in config.data.evaluation]
    for title in sorted({t for t in titles if titles.count(t) > 1}):
        found.append(f"data.evaluation: two data sets are called {title!r}; give each its own name")
    return found


def _sources(config: Config) -> dict[str, Source]:
    named = {f"data.evaluation.{k}": source for k, source in enumerate(config.data.evaluation)}
    named["data.train"] = config.data.train
    if config.data.validation is not None:
        named["data.validation"] = config.data.validation
    return named


def _pairs(config: Config) -> list[str]:
    """A named suite may bring the column of pairs by itself."""
    return [
        f"{name}.side_column = {source.side_column}: it says what a review is in its pair, but {name}.pair_column, "
        "which joins the pairs, is not set; set it, or leave side_column out"
        for name, source in _sources(config).items()
        if source.side_column and not (source.pair_column or source.edits_path or source.path.startswith("suite:"))
    ]


def _spurious(config: Config) -> list[str]:
    found = []
    for name, source in _sources(config).items():
        if source.spurious is None:
            continue
        if source.group_column:
            found.append(
                f"{name}.group_column = {source.group_column}: {name}.spurious makes groups of its own; leave one out"
            )
    return found


MOST_LORA_RANK = 512  # of vLLM
OF_SERVERS = ("--port", "--model", "--served-model-name", "--api-key")  # a run would wait for a server elsewhere


def _rollouts(config: Config) -> list[str]:
    rollouts, found = config.rollouts, []
    if rollouts.backend == "transformers":
        if config.evaluation.through_engine:
            found.append(
                "evaluation.through_engine = True: there is no engine with rollouts.backend=transformers; set "
                "rollouts.backend=vllm_server, or leave it out"
            )
        return found
    if rollouts.backend == "vllm_local" and config.training.engine == "deepspeed":
        found.append(
            "rollouts.backend = vllm_local: the engine is for one process, beside DeepSpeed it would meddle with the "
            "ranks' process group; set rollouts.backend=vllm_server, or training.engine=plain"
        )
    if rollouts.backend == "vllm_local" and rollouts.addresses:
        found.append(
            "rollouts.backend = vllm_local: rollouts.addresses are those of servers; set rollouts.backend=vllm_server"
        )
    if config.masking.view == "block" and config.objective.policy_gradient_weight > 0:
        found.append(
            "masking.view = block: an engine answers prompts and cannot block words inside them; set "
            "masking.view=replace, delete or infill, or rollouts.backend=transformers"
        )
    if config.lora.rank > MOST_LORA_RANK:
        found.append(
            f"lora.rank = {config.lora.rank}: vLLM serves adapters up to rank {MOST_LORA_RANK}; set a lower one"
        )
    if rollouts.reader == "tuned" and rollouts.sync_every - 1 > rollouts.staleness:
        found.append(
            f"rollouts.sync_every = {rollouts.sync_every}: answers would be up to {rollouts.sync_every - 1} steps old, "
            f"rollouts.staleness = {rollouts.staleness} drops them; set rollouts.staleness={rollouts.sync_every - 1}"
        )
    if rollouts.probe_warn > rollouts.probe_fail:
        found.append(
            f"rollouts.probe_warn = {rollouts.probe_warn}: above rollouts.probe_fail = {rollouts.probe_fail}, nobody "
            "would be warned; set a lower one"
        )
    if rollouts.devices and len(rollouts.devices) != rollouts.replicas:
        found.append(
            f"rollouts.devices = {list(rollouts.devices)}: set one entry for each of rollouts.replicas = "
            f"{rollouts.replicas}"
        )
    return found + _served_base(config) + _addresses(config)


def _served_base(config: Config) -> list[str]:
    quantization, rollouts = config.model.quantization, config.rollouts
    if rollouts.serve == "dequantised" and quantization != "nf4":
        return [
            f"rollouts.serve = dequantised: model.quantization = {quantization} has no 4-bit weights to unpack; set "
            "rollouts.serve=original"
        ]
    return []


def _addresses(config: Config) -> list[str]:
    rollouts, found = config.rollouts, []
    for argument in rollouts.server_arguments:
        if argument.partition("=")[0].replace("_", "-") in OF_SERVERS:
            found.append(f"rollouts.server_arguments: {argument} is chosen for each server by the run; leave it out")
    engines = [address.rstrip("/").lower() for address in rollouts.addresses]
    for engine in sorted({each for each in engines if engines.count(each) > 1 and "@" not in each}):
        found.append(f"rollouts.addresses: {engine} stands there twice, and is one engine; leave one out")
    for address in rollouts.addresses:
        if not _is_address(address):
            shown = f"…@{address.rpartition('@')[2]}" if "@" in address else address  # a message may end up in a log
            found.append(f"rollouts.addresses = {shown!r}: no address; write http://host:port")
    ours = {
        "serve = dequantised": rollouts.serve == "dequantised",
        f"replicas = {rollouts.replicas}": rollouts.replicas > 1,
        f"devices = {list(rollouts.devices)}": bool(rollouts.devices),
        f"server_arguments = {list(rollouts.server_arguments)}": bool(rollouts.server_arguments),
    }
    for setting in (name for name, given in ours.items() if given and rollouts.addresses):
        found.append(
            f"rollouts.{setting}: engines at rollouts.addresses serve as they were started; leave one of the two out"
        )
    return found


def _is_address(text: str) -> bool:
    """Whether it names a host, and a port or none; an engine's paths begin at its root."""
    try:
        place = urlsplit(text)
        # What is no port raises, and so does a part of a name that is empty or too long for one.
        named = bool((place.hostname or "").encode("idna")) and place.port != 0
    except ValueError:
        return False
    bare = place.path in ("", "/") and not (place.query or place.fragment or "@" in place.netloc)
    spelled = text.isascii() and text.isprintable() and " " not in text
    return place.scheme in ("http", "https") and named and bare and spelled
