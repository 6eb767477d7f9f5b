"""The jobs behind the CLI's verbs: train, evaluate, inspect. Each is the order of its steps and the files it leaves."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from rich.console import Console

from afa_llm import assembly
from afa_llm.assembly import Material, tell
from afa_llm.config import Config
from afa_llm.config_loading import dump_config, load_config
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.words import split_words
from afa_llm.errors import AfaError, StoppedError
from afa_llm.evaluation import json_files
from afa_llm.evaluation.estimates import Floats, Resampling
from afa_llm.evaluation.focus_items import focus_items
from afa_llm.evaluation.focus_quality import FocusScores, focus_scores
from afa_llm.evaluation.focus_reader import FocusReader
from afa_llm.evaluation.prompted_sentiment import ItemRecord, measure, write_items
from afa_llm.evaluation.report import write_report
from afa_llm.evaluation.results import Measured, Reading, RunFacts, build_results
from afa_llm.evaluation.word_frequencies import WordFrequencies
from afa_llm.models.decoder import Decoder
from afa_llm.records import Answers, AnswerWords, Example, Prompt
from afa_llm.rollouts.generator import Generator, TransformersGenerator
from afa_llm.training import distributed
from afa_llm.training.distributed import World
from afa_llm.training.trainer import Trainer, TrainingSummary
from afa_llm.training.watchdog import Watchdog

PATIENCE_SECONDS = 10.0  # how long a broken collective waits to learn which rank broke it
COURTESY_SECONDS = 3.0  # the launcher looks once a second, and should see the lost rank's exit code first


@dataclass
class Phase:
    """What one phase (before, after) measured."""

    items: list[ItemRecord] = field(default_factory=list)
    focus: dict[str, tuple[list[Floats], FocusScores]] = field(default_factory=dict)


@dataclass
class Clock:
    """Wall time by phase."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 2)


@dataclass(frozen=True)
class TokenIdAnswers:
    """A generator asked with prompts: it sees their token ids only."""

    generator: Generator

    def answer(self, prompts: Sequence[Prompt], answers: AnswerWords) -> Answers:
        return self.generator.answer([prompt.token_ids for prompt in prompts], answers)


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
    clock = Clock()
    with _job(config) as world:
        folder, material = _open(config, world, clock)
        with clock.phase("model"):
            world.pulse.at("model")
            decoder = assembly.build_decoder(config, material, world.device)
            engine = assembly.build_engine(config, decoder, world)
            adversarial_round = assembly.build_round(config, material, decoder, engine, world)
        validate = assembly.build_validation(config, material, decoder, world)
        trainer = Trainer(config, world, adversarial_round, engine, material.train_prompts, folder, validate)
        tell(world, f"{len(material.train_prompts)} reviews, {trainer.total_steps} steps on {world.size} rank(s)")
        before = _measure(config, material, decoder, world, clock, "before")
        with clock.phase("training"):
            summary = trainer.run()
            trainer.save_adapter(folder / "adapter")
        after = _measure(config, material, decoder, world, clock, "after")
        if world.leads:
            _write_results(config, material, world, folder, clock, before, after, summary)
    return folder


def evaluate(config: Config, adapter: Path | None) -> Path:
    """Measure the base and, with an adapter, the tuned model through the same decoder. Returns the run's folder."""
    clock = Clock()
    with _job(config) as world:
        folder, material = _open(config, world, clock)
        with clock.phase("model"):
            world.pulse.at("model")
            decoder = assembly.build_decoder(config, material, world.device, adapter)
        with decoder.base():
            before = _measure(config, material, decoder, world, clock, "before")
        after = _measure(config, material, decoder, world, clock, "after") if adapter is not None else None
        if world.leads:
            _write_results(config, material, world, folder, clock, before, after, None)
    return folder


def _open(config: Config, world: World, clock: Clock) -> tuple[Path, Material]:
    """The run's folder and its data, checked and reported."""
    folder = _open_folder(config, world)
    with clock.phase("data"):
        world.pulse.at("data")
        material = assembly.prepare(config)
        _report_data(folder, material, world)
    return folder, material


def inspect(config: Config, texts: Sequence[str], adapter: Path | None, console: Console) -> None:
    """Print what the model reads in each text: answer and focus, base and tuned."""
    from afa_llm.evaluation.terminal import render_focus

    world = distributed.start("plain", config.training.timeout_minutes)
    material = assembly.prepare(config.model_copy(update={"data": _no_evaluation(config)}), training=False)
    decoder = assembly.build_decoder(config, material, world.device, adapter)
    builder = material.builders[config.prompts.train]
    examples = [Example(f"text {i}", text, 0, split_words(text)) for i, text in enumerate(texts)]
    prompts = [builder.build(example) for example in examples]
    labels = list(config.data.labels)
    for title, context in (("base", decoder.base()), ("tuned", nullcontext()))[: 2 if adapter else 1]:
        with context:
            reader = FocusReader(decoder, material.answers, prompts, config.evaluation.batch_size)
            focus_N = reader.focus()
            logprob_NC = reader(range(len(prompts)), [frozenset()] * len(prompts))
        for prompt, focus_W, logprob_C in zip(prompts, focus_N, logprob_NC, strict=True):
            share_C = np.exp(logprob_C - np.logaddexp.reduce(logprob_C))
            answer = ", ".join(f"{name} {share:.2f}" for name, share in zip(labels, share_C, strict=True))
            console.print(f"[bold]{title}[/bold]  {answer}")
            console.print(render_focus(prompt.words, focus_W.tolist()))


def read_run_config(folder: Path) -> Config:
    """The configuration that a run saved."""
    return load_config(str(folder / "config.yaml"))


def _no_evaluation(config: Config) -> object:
    return config.data.model_copy(update={"evaluation": ()})


def _open_folder(config: Config, world: World) -> Path:
    """The run's folder with its config.yaml. Refuses to mix two runs."""
    folder = Path(config.run.output_dir) / config.run.name
    trouble = None
    if world.leads:
        try:
            trouble = _claim(config, folder)
        except OSError as error:
            trouble = f"run.output_dir = {config.run.output_dir}: cannot write there: {error.strerror}"
    trouble = world.from_leader(trouble)
    if trouble:
        raise AfaError(trouble)
    return folder


def _claim(config: Config, folder: Path) -> str | None:
    if (folder / "config.yaml").exists():
        if config.run.overwrite and not config.run.resume:
            shutil.rmtree(folder)
        elif not config.run.resume:
            return (
                f"run.name = {config.run.name}: {folder} holds an earlier run; choose another run.name, or set "
                "run.overwrite=true (it is deleted) or run.resume=true (it is continued)"
            )
    elif folder.exists() and any(folder.iterdir()):
        return f"run.name = {config.run.name}: {folder} exists and is no run of afa-llm; choose another run.name"
    (folder / "items").mkdir(parents=True, exist_ok=True)
    json_files.write_text(folder / "config.yaml", dump_config(config))
    return None


def _report_data(folder: Path, material: Material, world: World) -> None:
    if not world.leads:
        return
    for notice in material.notices:
        tell(world, notice)
    together = Quarantine()
    for title, quarantine in material.quarantines.items():
        together.absorb(quarantine)
        if quarantine.rows or quarantine.notes:
            tell(world, f"{title}: {quarantine.summary()}")
    written = together.write(folder / "quarantine.jsonl")
    if written:
        tell(world, f"{len(together.rows)} rows set aside, see {written}")


def _measure(config: Config, material: Material, decoder: Decoder, world: World, clock: Clock, phase: str) -> Phase:
    with clock.phase(phase):
        world.pulse.at(phase)
        return _measure_all(config, material, decoder, world, phase)


def _measure_all(config: Config, material: Material, decoder: Decoder, world: World, phase: str) -> Phase:
    """Every data set under every template, then the focus under the training template."""
    settings, found = config.evaluation, Phase()
    generator = TokenIdAnswers(TransformersGenerator(decoder, settings.batch_size, world))
    frequencies = WordFrequencies.from_examples(material.train_examples, settings.rare_quantile)
    for title, sets in material.prompt_sets.items():
        tell(world, f"{phase}: {title}, {len(sets[0].prompts)} reviews, {len(sets)} template(s)")
        for prompt_set in sets:
            found.items += measure(prompt_set, generator, phase, settings.calibrations, settings.batch_size * 8)
        prompts = material.focus_prompts[title]
        if prompts:
            reader = FocusReader(decoder, material.answers, prompts, settings.batch_size, world)
            focus_N = reader.focus()
            examples = [prompt.example for prompt in prompts]
            scores = focus_scores(examples, focus_N, reader, frequencies, settings.focus_fractions, config.run.seed)
            found.focus[title] = (focus_N, scores)
    return found


def _write_results(
    config: Config,
    material: Material,
    world: World,
    folder: Path,
    clock: Clock,
    before: Phase,
    after: Phase | None,
    summary: TrainingSummary | None,
) -> None:
    place = folder
    for phase in (before, after):
        for records in _by_file(phase.items if phase else []):
            first = records[0]
            path = json_files.answers_path(place, first.data_set, first.template, first.phase)
            write_items(path, records)
    for title in before.focus:
        examples = [prompt.example for prompt in material.focus_prompts[title]]
        items = focus_items(title, examples, before.focus[title], after.focus[title] if after else None)
        json_files.write_lines(json_files.focus_path(place, title), items)
    facts = RunFacts(
        name=config.run.name,
        config=config.model_dump(mode="json"),
        seed=config.run.seed,
        world_size=world.size,
        device=str(world.device),
        started=clock.started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=clock.seconds,
    )
    measured = Measured(
        before=before.items,
        after=after.items if after else None,
        focus={t: (scores, after.focus[t][1] if after else None) for t, (_, scores) in before.focus.items()},
        quarantined={title: len(found.rows) for title, found in material.quarantines.items()},
        training=asdict(summary) if summary else None,
    )
    settings = config.evaluation
    reading = Reading(
        labels=tuple(config.data.labels),
        train_template=config.prompts.train,
        calibrations=settings.calibrations,
        headline_calibration=settings.headline_calibration,
        resampling=Resampling(settings.bootstrap_samples, settings.confidence, config.run.seed),
    )
    json_files.write_json(folder / "results.json", build_results(facts, measured, reading))
    write_report(folder)


def _by_file(items: Sequence[ItemRecord]) -> list[list[ItemRecord]]:
    files: dict[tuple[str, str], list[ItemRecord]] = {}
    for item in items:
        files.setdefault((item.data_set, item.template), []).append(item)
    return list(files.values())


def summary_lines(folder: Path) -> list[str]:
    """The result in a few lines, from results.json."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    lines = []
    for entry in results["headline"]:
        before, after, difference = entry["before"], entry["after"], entry["difference"]
        line = f"{entry['data_set']}: accuracy {100 * before['value']:.1f} %"
        if after:
            line += (
                f" -> {100 * after['value']:.1f} %, difference {100 * difference['value']:+.1f} points "
                f"[{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}], p = {entry['p_value']:.2g}"
            )
        lines.append(line)
    for entry in results["focus"]:
        shown = [m for m in entry["metrics"] if m["metric"] in ("auprc", "comprehensiveness", "sufficiency")]
        parts = [_change(m) for m in shown if m["before"]["value"] is not None]
        lines.append(f"{entry['data_set']}: focus {', '.join(parts)}")
    return lines


def _change(metric: dict) -> str:
    after = metric["after"]
    return f"{metric['metric']} {metric['before']['value']:.3f}" + (f" -> {after['value']:.3f}" if after else "")
