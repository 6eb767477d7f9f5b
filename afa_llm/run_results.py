"""What a run measures before and after, and the files that say so.

Legend: N prompts, C labels.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from afa_llm.config import Config
from afa_llm.data.word_forms import is_punctuation, normal_form
from afa_llm.evaluation import json_files
from afa_llm.evaluation.comparison import clusters_of
from afa_llm.evaluation.estimates import Floats, Resampling
from afa_llm.evaluation.focus_items import focus_items
from afa_llm.evaluation.focus_quality import FocusScores, LeaveOneOut, focus_scores
from afa_llm.evaluation.focus_reader import FocusReader
from afa_llm.evaluation.prompted_sentiment import ItemRecord, measure, write_items
from afa_llm.evaluation.report import write_report
from afa_llm.evaluation.results import Measured, Reading, RunFacts, build_results
from afa_llm.evaluation.slices import Slice, slices_of
from afa_llm.evaluation.word_frequencies import WordFrequencies
from afa_llm.material import Material
from afa_llm.models.compute_type import device_name
from afa_llm.models.decoder import Decoder
from afa_llm.records import Answers, AnswerWords, Prompt
from afa_llm.rollouts.engine_service import EngineService
from afa_llm.rollouts.generator import Generator, TransformersGenerator
from afa_llm.rollouts.vllm_server import BaseGenerator
from afa_llm.training.distributed import World
from afa_llm.training.training_summary import TrainingSummary


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


def measure_phase(
    config: Config,
    material: Material,
    decoder: Decoder,
    world: World,
    clock: Clock,
    phase: str,
    service: EngineService | None = None,
) -> Phase:
    """Every data set under every template, and the focus; every rank calls it.

    Prompts are answered by the decoder, or where evaluation.through_engine says so by the engines: by their base before
    and by their adapter after. The focus is the decoder's: an engine gives no attention.
    """
    generator: Generator = TransformersGenerator(decoder, config.evaluation.batch_size, world)
    if service and config.evaluation.through_engine:
        generator = service.generator if phase == "after" else BaseGenerator(service.generator)
    with clock.phase(phase):
        world.pulse.at(phase)
        return _measure_all(config, material, decoder, generator, world, phase)


def _measure_all(
    config: Config, material: Material, decoder: Decoder, answering: Generator, world: World, phase: str
) -> Phase:
    """Every data set under every template, then the focus under the training template."""
    settings, found = config.evaluation, Phase()
    generator = TokenIdAnswers(answering)
    frequencies = WordFrequencies.from_examples(material.train_examples, settings.rare_quantile)
    for title, sets in material.prompt_sets.items():
        world.tell(f"{phase}: {title}, {len(sets[0].prompts)} reviews, {len(sets)} template(s)")
        for prompt_set in sets:
            found.items += measure(prompt_set, generator, phase, settings.calibrations, settings.batch_size * 8)
        prompts = material.focus_prompts[title]
        if prompts:
            reader = FocusReader(decoder, material.answers, prompts, settings.batch_size, world)
            focus_N, weighted_N = map(list, zip(*reader.focus_and_value_weighted(), strict=True))
            scores = focus_scores(
                [prompt.example for prompt in prompts],
                focus_N,
                reader,
                frequencies,
                settings.focus_fractions,
                config.run.seed,
                weighted_N=weighted_N,
                leave_one_out=LeaveOneOut(settings.leave_one_out_samples, settings.leave_one_out_words),
            )
            found.focus[title] = (focus_N, scores)
    return found


def write_results(
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
    json_files.write_json(json_files.word_counts_path(place), _word_counts(config, material))
    facts = RunFacts(
        name=config.run.name,
        config=config.model_dump(mode="json"),
        seed=config.run.seed,
        world_size=world.size,
        device=device_name(world.device),
        started=clock.started.isoformat(timespec="seconds"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=clock.seconds,
    )
    measured = Measured(
        before=before.items,
        after=after.items if after else None,
        focus={t: (scores, after.focus[t][1] if after else None) for t, (_, scores) in before.focus.items()},
        focus_clusters={t: clusters_of([p.example for p in material.focus_prompts[t]]) for t in before.focus},
        quarantined={title: len(found.rows) for title, found in material.quarantines.items()},
        training=asdict(summary) if summary else None,
        slices=_slices(config, material),
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


def _slices(config: Config, material: Material) -> dict[str, dict[str, tuple[Slice, ...]]]:
    """Data set -> example id -> slices by training frequency."""
    frequencies = WordFrequencies.from_examples(material.train_examples, config.evaluation.rare_quantile)
    return {
        title: {example.example_id: slices_of(example, frequencies, material.lexicon) for example in examples}
        for title, examples in material.evaluation.items()
    }


def _word_counts(config: Config, material: Material) -> dict[str, int]:
    """How often the words whose focus was read stand in the training reviews, by normal form."""
    counts = WordFrequencies.from_examples(material.train_examples, config.evaluation.rare_quantile).counts
    words = (word for prompts in material.focus_prompts.values() for prompt in prompts for word in prompt.words)
    forms = {normal_form(word) for word in words if not is_punctuation(word)}
    return {form: counts.get(form, 0) for form in sorted(forms)}


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
        if entry.get("ranking"):  # runs of before it was measured have none
            line += f"; AUROC {entry['ranking']['before']['value']:.3f} -> {entry['ranking']['after']['value']:.3f}"
        lines.append(line)
    for entry in results["pairs"]:
        shares = [entry[phase]["consistency"]["value"] for phase in ("before", "after") if entry[phase]]
        text = " -> ".join(f"{100 * share:.1f} %" for share in shares)
        lines.append(f"{entry['data_set']}, {entry['template']}: all right in {text} of {entry['pairs']} pairs")
    for entry in results["focus"]:
        shown = [m for m in entry["metrics"] if m["metric"] in ("auprc", "comprehensiveness", "sufficiency")]
        parts = [_change(m) for m in shown if m["before"]["value"] is not None]
        lines.append(f"{entry['data_set']}: focus {', '.join(parts)}")
    return lines


def _change(metric: dict) -> str:
    after = metric["after"]
    return f"{metric['metric']} {metric['before']['value']:.3f}" + (f" -> {after['value']:.3f}" if after else "")
