"""The jobs behind the verbs train, evaluate, inspect and layers: the order of their steps, the files they leave."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from afa_llm import assembly
from afa_llm.config import Config
from afa_llm.config_data import Evaluation
from afa_llm.config_running import Rollouts
from afa_llm.data.prompts import PromptBuilder
from afa_llm.data.suites import lacking, resolve_suites
from afa_llm.data.words import split_words
from afa_llm.errors import AfaError, StoppedError
from afa_llm.evaluation.focus_reader import FocusReader
from afa_llm.evaluation.layer_focus import answer_shifts
from afa_llm.kept_before import check_folder, measure_before
from afa_llm.material import Material, prepare
from afa_llm.method.attention_readout import out_of_reach
from afa_llm.models.adapters import check_adapter
from afa_llm.models.decoder import Decoder
from afa_llm.models.embedded_tokens import check_embedded
from afa_llm.models.positions import check_positions
from afa_llm.records import Example, Prompt
from afa_llm.rollouts.engine_service import EngineService
from afa_llm.run_advice import advices
from afa_llm.run_agreement import check_same_settings
from afa_llm.run_dtype import settle_dtype
from afa_llm.run_folder import (
    claim,
    counted_elsewhere,
    reserved_folder,
    save_settings,
    tell_data,
    write_quarantine,
)
from afa_llm.run_layers import DEEP, settle_layers
from afa_llm.run_results import Clock, measure_phase, write_results
from afa_llm.training import distributed
from afa_llm.training.distributed import World
from afa_llm.training.engine import Engine
from afa_llm.training.trainer import Trainer
from afa_llm.training.watchdog import Watchdog

PATIENCE_SECONDS = 10.0  # how long a broken collective waits to learn which rank broke it
COURTESY_SECONDS = 3.0  # the launcher looks once a second, and should see the lost rank's exit code first


@contextmanager
def _job(config: Config) -> Iterator[World]:
    """The ranks from start to end: signals ask to stop, a watchdog names a rank that is lost."""
    settings = config.training
    sharded = settings.engine == "deepspeed" and settings.zero_stage == 3
    world = distributed.start(settings.engine, settings.timeout_minutes, lockstep=sharded)
    watchdog = Watchdog(world, settings.silence_seconds, 60 * settings.timeout_minutes)
    world.stop.listen()
    watchdog.start()
    try:
        check_same_settings(config, world)
        yield world
        world.wait()
    except StoppedError:
        world.wait()  # all stop together: nobody's connection breaks before it has said so
        raise
    except RuntimeError as error:
        culprit = watchdog.culprit(PATIENCE_SECONDS) if world.size > 1 else None
        if culprit is None:
            raise
        time.sleep(COURTESY_SECONDS)
        raise culprit from error
    finally:
        watchdog.close()
        world.stop.deafen()
    distributed.stop()


def train(config: Config) -> Path:
    """Before, training, after, report. Returns the run's folder.

    Raises AfaError for what a user can mend, StoppedError after a signal, PeerLostError where another rank is gone.
    """
    given, clock = config, Clock()
    config = resolve_suites(given)
    with _job(config) as world, reserved_folder(config, world) as folder:
        check_folder(config, world)
        config = settle_dtype(config, world)
        material = _prepare(config, world, clock, lacking(given, config))
        with clock.phase("model"):
            world.pulse.at("model")
            decoder = assembly.build_decoder(config, material, world.device)
            engine = assembly.build_engine(config, decoder, world)
        with clock.phase("layers"):
            config = settle_layers(config, material, decoder, world)
        claim(config, folder, world)
        write_quarantine(folder, material, world)
        with _engines(config, material, decoder, engine, world, clock, folder) as service:
            generator = assembly.build_generator(config, service)
            adversarial_round = assembly.build_round(config, material, decoder, engine, world, generator, service)
            validate = assembly.build_validation(config, material, decoder, world)
            prompts, deliver = material.train_prompts, assembly.build_delivery(config, service)
            trainer = Trainer(config, world, adversarial_round, engine, prompts, folder, validate, deliver)
            world.tell(f"{len(prompts)} reviews, {trainer.total_steps} steps on {world.size} rank(s)")
            for advice in advices(config, trainer.total_steps, len(decoder.layers)):
                world.tell(advice)
            before = measure_before(config, material, decoder, world, clock, service)
            with clock.phase("training"):
                trains = trainer.resume() < trainer.total_steps
                if not trains:
                    world.tell(f"all {trainer.total_steps} steps were done before: nothing is left to train")
                save_settings(config, folder, world, trains=trains)
                summary = trainer.run()
                trainer.save_adapter(folder / "adapter")
            clock.seconds["training"] += trainer.watch.earlier
            if service and config.evaluation.through_engine:
                service.deliver(summary.steps)
            after = measure_phase(config, material, decoder, world, clock, "after", service)
        if world.leads:
            write_results(config, material, world, folder, clock, before, after, summary)
    return folder


def evaluate(config: Config, adapter: Path | None) -> Path:
    """Measure the base and, with an adapter, the tuned model through the same decoder. Returns the run's folder."""
    if not config.data.evaluation:
        raise AfaError("data.evaluation = []: there is nothing to measure on; name a data set")
    if adapter is not None:
        check_adapter(adapter)
    given, clock = config, Clock()
    config = resolve_suites(given)
    with _job(config) as world, reserved_folder(config, world, adapter=adapter, evaluates=True) as folder:
        check_folder(config, world)
        config = settle_dtype(config, world)
        notices = [*lacking(given, config), *counted_elsewhere(config, adapter)]
        asks = config.asks_engine(training=False)
        material = _prepare(config if asks else _without_engine(config), world, clock, notices, learns=False)
        with clock.phase("model"):
            world.pulse.at("model")
            decoder = assembly.build_decoder(config, material, world.device, adapter)
        with clock.phase("layers"):
            config = settle_layers(config, material, decoder, world)
        claim(config, folder, world)
        save_settings(config, folder, world)
        write_quarantine(folder, material, world)
        with _engines(config, material, decoder, None, world, clock, folder) as service:
            with decoder.base():
                before = measure_before(config, material, decoder, world, clock, service)
            if service and adapter is not None:
                service.deliver(1)
            after = (
                measure_phase(config, material, decoder, world, clock, "after", service)
                if adapter is not None
                else None
            )
        if world.leads:
            write_results(config, material, world, folder, clock, before, after, None)
    return folder


@contextmanager
def _engines(
    config: Config,
    material: Material,
    decoder: Decoder,
    engine: Engine | None,
    world: World,
    clock: Clock,
    folder: Path,
) -> Iterator[EngineService | None]:
    """The engines of `rollouts`, where some are set: their start is a phase of its own."""
    world.pulse.at("engines")
    with ExitStack() as stack, clock.phase("engines"):
        service = stack.enter_context(assembly.engines(config, material, decoder, engine, world, folder))
        kept = stack.pop_all()
    with kept:
        yield service


def _prepare(config: Config, world: World, clock: Clock, notices: Sequence[str], *, learns: bool = True) -> Material:
    """Reviews and prompts, checked and told of."""
    with clock.phase("data"):
        world.pulse.at("data")
        material = prepare(config, learns=learns)
        for notice in notices:
            world.tell(notice)
        tell_data(material, world)
    return material


def inspect(config: Config, texts: Sequence[str], adapter: Path | None, console: Console) -> None:
    """Print what the model reads in each text: answer and focus, base and tuned."""
    from afa_llm.evaluation.terminal import render_focus

    if adapter is not None:
        check_adapter(adapter)
    config = resolve_suites(config)
    world = distributed.start("plain", config.training.timeout_minutes)
    asked = _without_engine(config).model_copy(update={"data": _no_evaluation(config), "evaluation": Evaluation()})
    material = prepare(asked, training=False)
    builder = material.builders[config.prompts.train]
    examples = [Example(f"text {i}", text, 0, split_words(text)) for i, text in enumerate(texts, 1)]
    prompts = [_prompt(example, builder, config.data.max_tokens) for example in examples]
    check_positions(config.model, prompts, [material.answers])
    check_embedded(config.model, prompts, [material.answers])
    decoder = assembly.build_decoder(config, material, world.device, adapter)
    if config.attention.layers == "auto" and len(decoder.layers) >= DEEP:
        world.tell(
            f"attention.layers = auto: without training reviews all {len(decoder.layers)} layers are shown; name those "
            "that `afa layers` prints, or show a run, which has settled on some (--run)"
        )
    labels = list(config.data.labels)
    for title, context in (("base", decoder.base()), ("tuned", nullcontext()))[: 2 if adapter else 1]:
        with context:
            reader = FocusReader(decoder, material.answers, prompts, config.evaluation.batch_size)
            focus_N = reader.focus()
            logprob_NC = reader(range(len(prompts)), [frozenset()] * len(prompts))
        if not all(focus_W.any() for focus_W in focus_N):
            raise AfaError(out_of_reach(decoder.layers))
        if np.isnan(logprob_NC).any():
            raise AfaError(f"the {title} model's answers are not numbers; its weights may hold NaN: name others")
        for prompt, focus_W, logprob_C in zip(prompts, focus_N, logprob_NC, strict=True):
            share_C = np.exp(logprob_C - np.logaddexp.reduce(logprob_C))
            answer = ", ".join(f"{name} {share:.2f}" for name, share in zip(labels, share_C, strict=True))
            console.print(Text.assemble((title, "bold"), f"  {answer}"))  # a label may hold brackets
            console.print(render_focus(prompt.words, focus_W.tolist()))


def layers(config: Config, reviews: int, adapter: Path | None, console: Console) -> None:
    """Print how well every layer's focus fits what hiding each word does to the answer, on `reviews` training reviews,
    and the layers that fit best: for attention.layers."""
    from afa_llm.evaluation.layer_table import layer_table

    if adapter is not None:
        check_adapter(adapter)
    config = resolve_suites(config)
    few = config.data.train.model_copy(update={"max_samples": min(reviews, config.data.train.max_samples or reviews)})
    data = config.data.model_copy(update={"evaluation": (), "train": few})
    attention = config.attention.model_copy(update={"layers": "all"})
    config = _without_engine(config.model_copy(update={"data": data, "attention": attention}))
    world = distributed.start("plain", config.training.timeout_minutes)
    material = prepare(config, learns=False)
    tell_data(material, world)
    prompts = [prompt for prompt in material.train_prompts if len(prompt.example.words) > 1]
    if len(prompts) < 2:
        raise AfaError(
            f"{config.data.train.path}: {len(prompts)} review(s) of two words or more; two are needed at least"
        )
    decoder = assembly.build_decoder(config, material, world.device, adapter)
    reader = FocusReader(decoder, material.answers, prompts, config.evaluation.batch_size)
    focus_NLW = reader.focus_by_layer()
    counts, most = [len(prompt.example.words) for prompt in prompts], config.evaluation.leave_one_out_words
    world.tell(f"{len(counts)} reviews, {sum(min(count, most) for count in counts)} words to hide one by one")
    shift_NW = answer_shifts(counts, reader, most, config.run.seed)
    for line in layer_table([prompt.example for prompt in prompts], focus_NLW, shift_NW):
        console.print(line, soft_wrap=isinstance(line, str))  # a line to copy stays one line


def _prompt(example: Example, builder: PromptBuilder, most: int) -> Prompt:
    """The prompt of a text, or AfaError that says which text cannot be read."""
    try:
        prompt = builder.build(example)
    except AfaError as error:
        raise AfaError(f"{example.example_id}: {error}") from None
    if len(prompt.token_ids) > most:
        length = len(prompt.token_ids)
        raise AfaError(
            f"{example.example_id}: {length} tokens, over data.max_tokens = {most}; shorten it, or raise that"
        )
    return prompt


def _without_engine(config: Config) -> Config:
    """The settings of a job that asks no engine, so that none has to be there."""
    return config.model_copy(update={"rollouts": Rollouts()})


def _no_evaluation(config: Config) -> object:
    return config.data.model_copy(update={"evaluation": ()})
