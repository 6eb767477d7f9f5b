"""A run's folder as the real writers make it, from numbers drawn at random: for tests of the report and to look at.

`python tests/evaluation/fake_run.py FOLDER` leaves one behind. No number in it was measured.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from afa_llm.evaluation.comparison import Resampling
from afa_llm.evaluation.focus_items import focus_items
from afa_llm.evaluation.focus_quality import FocusScores, focus_scores
from afa_llm.evaluation.json_files import answers_path, focus_path, write_json, write_lines
from afa_llm.evaluation.prompted_sentiment import ItemRecord, PromptSet, item_records, write_items
from afa_llm.evaluation.results import Measured, Reading, RunFacts, build_results
from afa_llm.evaluation.slices import Slice, slices_of
from afa_llm.evaluation.word_frequencies import WordFrequencies
from afa_llm.records import AnswerWords, Example, Prompt

LABELS = ("negative", "positive")
TEMPLATES = ("review_sentiment", "overall_it_was", "is_this_review")
CALIBRATIONS = ("none", "contextual", "domain", "batch")
HOW = Resampling(400, 0.95, 0)
COMMON = [
    "the", "a", "film", "movie", "it", "is", "of", "and", "this", "that",
    "with", "for", "its", "story", "in", "to", "as", "but", "one", "has",
]  # fmt: skip
TELLING = {
    1: ["superb", "dazzling", "heartfelt", "delightful", "poignant", "luminous", "riveting", "tender"],
    0: ["tedious", "hollow", "clumsy", "dreadful", "lifeless", "contrived", "insipid", "grating"],
}


def make_review(rng: np.random.Generator, number: int) -> Example:
    label = int(rng.integers(2))
    words = [str(word) for word in rng.choice(COMMON, size=int(rng.integers(8, 34)))]
    places = rng.choice(len(words), size=int(rng.integers(1, 4)), replace=False)
    for place in places:
        words[place] = str(rng.choice(TELLING[label]))
    words += ["."]
    spans, start = [], 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    rationale = tuple(1.0 if place in places else 0.0 for place in range(len(words)))
    return Example(f"dev-{number}", " ".join(words), label, tuple(spans), rationale)


def with_pair(example: Example, number: int) -> Example:
    return replace(example, pair=f"p{number // 2}", side=("original", "edited")[number % 2])


def with_test(example: Example, number: int) -> Example:
    """By threes: a functionality test, then an invariance test's or a direction's base and change."""
    case, place = divmod(number, 3)
    kind = "MFT" if place == 0 else ("INV", "DIR")[case % 2]
    pair, side = (f"c{case}", ("base", "changed")[place - 1]) if place else ("", "")
    return replace(example, group=f"{kind} drawn", pair=pair, side=side)


def answer(rng: np.random.Generator, examples: Sequence[Example], skill: float, bias: float) -> np.ndarray:
    """Label log-probabilities [N, 2] of a model of some skill."""
    lean = np.array([2 * example.label - 1 for example in examples]) * skill + bias
    logit = lean + rng.normal(size=len(examples)) * 1.4
    positive = 1 / (1 + np.exp(-logit))
    return np.log(np.stack([1 - positive, positive], axis=1)) - 1.5


def answer_items(
    data_set: str, examples: Sequence[Example], phase: str, seed: int, templates: Sequence[str], tuned: float = 1.35
) -> list[ItemRecord]:
    found = []
    for place, template in enumerate(templates):
        noise = np.random.default_rng([seed, place])  # the same noise before and after: most answers stay
        skill, bias = (1.0, (-0.8, 0.5, 1.1)[place]) if phase == "before" else (tuned, (-0.2, 0.3, 0.6)[place])
        prompts = tuple(Prompt(example, (1, 2), (0, -1)) for example in examples)
        wanted = PromptSet(data_set, template, prompts, AnswerWords(LABELS, ((1,), (2,))))
        priors = {name: answer(noise, examples[:3], 0.0, bias) for name in ("contextual", "domain")}
        log_prob = answer(noise, examples, skill, bias)
        found += item_records(wanted, phase, log_prob, priors, 0 if phase == "before" else 40, CALIBRATIONS)
    return found


def read_focus(rng: np.random.Generator, example: Example, sharpness: float) -> np.ndarray:
    """Focus that leans on telling words by `sharpness`."""
    score = rng.normal(size=len(example.words)) * 0.9 + sharpness * np.array(example.rationale or 0.0)
    focus = np.exp(score)
    return focus / focus.sum()


class TellingModel:
    """Answers by the share of telling words it still sees."""

    def __init__(self, examples: Sequence[Example], strength: float) -> None:
        self.examples, self.strength = examples, strength

    def __call__(self, reviews: Sequence[int], hidden: Sequence[frozenset[int]]) -> np.ndarray:
        rows = []
        for review, words in zip(reviews, hidden, strict=True):
            example = self.examples[review]
            seen = sum(value for word, value in enumerate(example.rationale or ()) if word not in words)
            wobble = math.sin(37.0 * review) * 1.6
            rows.append((2 * example.label - 1) * self.strength * seen + wobble - 0.02 * len(words))
        positive = 1 / (1 + np.exp(-np.array(rows)))
        return np.log(np.stack([1 - positive, positive], axis=1))


def measure_focus(
    examples: Sequence[Example], seed: int, sharpness: float, strength: float
) -> tuple[list[np.ndarray], FocusScores]:
    rng = np.random.default_rng(seed)
    focus = [read_focus(rng, example, sharpness) for example in examples]
    frequencies = WordFrequencies.from_examples(examples, 0.25)
    model = TellingModel(examples, strength)
    return focus, focus_scores(examples, focus, model, frequencies, (0.01, 0.05, 0.1, 0.2, 0.5), seed=0)


def write_metrics(path: Path, steps: int) -> None:
    rng = np.random.default_rng(5)
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        share = step / steps
        row: dict[str, Any] = {
            "step": step,
            "task_loss": 0.69 * math.exp(-1.6 * share) + 0.12 + rng.normal() * 0.03,
            "reward": -0.9 + 0.5 * share + rng.normal() * 0.1,
            "adversary_advantage_over_random": 0.15 * (1 - math.exp(-5 * share)) + rng.normal() * 0.03,
            "focus_entropy": 0.88 - 0.17 * share + rng.normal() * 0.01,
            "grad_norm": abs(rng.normal(0.8, 0.3)) + (6.0 if step == 30 else 0.0),
            "learning_rate": 5e-4 * min(1.0, step / 10) * 0.5 * (1 + math.cos(math.pi * share)),
            "sink_mass": 0.71 + rng.normal() * 0.01,
            "kl": 0.05 * share,
            "tokens_per_second": 3100 + rng.normal() * 150,
            "phase": "train",
        }
        if step % 5 == 0:
            row["adversary_auroc"] = 0.5 + 0.32 * (1 - math.exp(-6 * share)) + rng.normal() * 0.02
        if 40 <= step < 44:
            row["reward"] = math.nan
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_fake_run(
    folder: Path,
    data_sets: Sequence[str] = ("sst2",),
    reviews: int = 300,
    templates: Sequence[str] = TEMPLATES,
    trained: bool = True,
    focus: bool = True,
    rationales: bool = True,
    steps: int = 160,
    groups: bool = False,
    draw: int = 0,
    tuned: float = 1.35,
    sharpness: float = 1.7,
    suites: bool = False,
) -> Path:
    """results.json, metrics.jsonl and items of a run; what is switched off is left out as a real run would."""
    before: list[ItemRecord] = []
    after: list[ItemRecord] = []
    slices: dict[str, dict[str, tuple[Slice, ...]]] = {}
    quality: dict[str, tuple[FocusScores, FocusScores | None]] = {}
    for place, name in enumerate(data_sets):
        rng = np.random.default_rng(100 + place)
        examples = [make_review(rng, number) for number in range(reviews)]
        if not rationales:
            examples = [Example(e.example_id, e.text, e.label, e.words) for e in examples]
        if groups:
            examples = [
                Example(e.example_id, e.text, e.label, e.words, e.rationale, ("short", "long")[len(e.words) > 20])
                for e in examples
            ]
        if suites:  # the first set holds pairs, the second one behavioural tests
            examples = [with_test(e, k) if place else with_pair(e, k) for k, e in enumerate(examples)]
            frequencies = WordFrequencies.from_examples(examples, 0.25)
            slices[name] = {e.example_id: slices_of(e, frequencies, frozenset()) for e in examples}
        before += answer_items(name, examples, "before", place + 100 * draw, templates)
        after += answer_items(name, examples, "after", place + 100 * draw, templates, tuned) if trained else []
        if focus:
            some = examples[:120]
            old = measure_focus(some, place + 100 * draw, 0.3, 0.9)
            new = measure_focus(some, place + 100 * draw, sharpness, 1.8) if trained else None
            quality[name] = (old[1], new[1] if new else None)
            write_lines(focus_path(folder, name), focus_items(name, some, old, new))
    for phase, items in (("before", before), ("after", after)):
        for name in data_sets:
            for template in templates:
                of_file = [item for item in items if (item.data_set, item.template) == (name, template)]
                write_items(answers_path(folder, name, template, phase), of_file)
    if trained and steps:
        write_metrics(folder / "metrics.jsonl", steps)
    facts = RunFacts(
        name=folder.name, config={"adversary": {"auroc_low": 0.52, "auroc_high": 0.98}, "model": {"path": "fake"}},
        seed=0, world_size=2, device="drawn at random", started="2026-01-01T10:00:00Z",
        finished="2026-01-01T10:41:00Z", seconds={"before": 61.2, "training": 2140.0, "after": 59.8},
    )  # fmt: skip
    training = {"steps": steps, "reviews": 5120, "skipped_steps": 0, "final_task_loss": 0.2631} if trained else None
    measured = Measured(
        before, after if trained else None, quality, {"train": 3, **dict.fromkeys(data_sets, 0)}, training, slices
    )
    reading = Reading(LABELS, templates[0] if templates else "", CALIBRATIONS, "none", HOW)
    write_json(folder / "results.json", build_results(facts, measured, reading))
    return folder


if __name__ == "__main__":
    write_fake_run(Path(sys.argv[1]))
