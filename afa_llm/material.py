"""What a run asks of the model: reviews and prompts, built and checked before any model is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from afa_llm.config import Config
from afa_llm.config_data import Source, Spurious
from afa_llm.data.demonstrations import draw_demonstrations
from afa_llm.data.duplicates import check_sets
from afa_llm.data.lexicons import read_lexicon
from afa_llm.data.prompts import PromptBuilder, build_prompts, text_of_ours
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.sources import load_examples
from afa_llm.data.spurious import regrouped, taken_out
from afa_llm.data.templates import load_templates
from afa_llm.engine_assembly import check_engine
from afa_llm.errors import AfaError
from afa_llm.evaluation.behaviour import check_cases
from afa_llm.evaluation.calibration import content_free_examples, domain_examples
from afa_llm.evaluation.prompted_sentiment import PromptSet
from afa_llm.material_checks import (
    check_classes,
    check_masks,
    check_rationales,
    one_sided,
    wants_rationales,
)
from afa_llm.models.adapters import load_tokenizer
from afa_llm.models.embedded_tokens import check_embedded
from afa_llm.models.positions import check_positions
from afa_llm.records import AnswerWords, Example, Prompt


@dataclass(frozen=True)
class Material:
    """Everything a run asks of the model. Producer: prepare. Consumer: jobs."""

    tokenizer: Any
    builders: dict[str, PromptBuilder]
    train_examples: list[Example]
    train_prompts: list[Prompt]
    validation_prompts: list[Prompt]
    evaluation: dict[str, list[Example]]
    prompt_sets: dict[str, list[PromptSet]]
    focus_prompts: dict[str, list[Prompt]]
    answers: AnswerWords
    fillers: tuple[tuple[int, ...], ...]
    quarantines: dict[str, Quarantine]
    notices: list[str] = field(default_factory=list)
    lexicon: frozenset[str] = frozenset()


def basis(config: Config) -> str:
    """What `prepare` reads of a configuration: where it is the same, faults and measured reviews are. The seed counts
    where it draws some of these, or demonstrations, which leave others too long."""
    masking, evaluation = config.masking, config.evaluation
    seeded = config.prompts.demonstrations or any(s.max_samples or s.spurious for s in config.data.evaluation)
    sections = [part.model_dump(mode="json") for part in (config.data, config.prompts, config.model, config.rollouts)]
    values = [evaluation.lexicon, evaluation.focus_samples, masking.view, masking.fillers, masking.masks_per_review]
    return json.dumps([sections, values, wants_rationales(config), seeded and config.run.seed], sort_keys=True)


def prepare(config: Config, *, training: bool = True, learns: bool = True) -> Material:
    """Tokenizer, reviews and prompts, all checked. Raises AfaError for whatever a user has to mend.

    `training`: whether the reviews to train on are read; `learns`: whether anything is trained on them, so that they
    have to be fit for it. Else their texts alone count, and their labels may be others than those measured.
    """
    check_engine(config.rollouts)
    lexicon = read_lexicon(config.evaluation.lexicon)
    tokenizer, quarantines = load_tokenizer(config.model), dict[str, Quarantine]()
    builders, shown = _builders(config, tokenizer)
    train, train_prompts = _training(config, builders, shown, quarantines, learns) if training else ([], [])
    validation, validation_prompts = _validation(config, builders, quarantines, learns) if training else ([], [])
    evaluation, prompt_sets, focus_prompts = _evaluation(config, builders, quarantines)
    notices = one_sided(tuple(config.data.labels), evaluation, focus_prompts)
    notices += _check_duplicates(config, train, validation, evaluation)
    fillers = _fillers(config, tokenizer)
    if training and learns:
        check_masks(config, train_prompts)
        notices += check_classes(config, train_prompts)
        check_rationales(config, train_prompts)
    asked = [each for sets in prompt_sets.values() for each in sets]
    measured = [prompt for each in asked for prompt in (*each.prompts, *each.content_free, *each.in_domain)]
    every, answers = [*train_prompts, *validation_prompts, *measured], [b.answer_words for b in builders.values()]
    check_positions(config.model, every, answers, engine=config.asks_engine(training=training))
    check_embedded(config.model, every, answers)
    return Material(
        tokenizer=tokenizer,
        builders=builders,
        train_examples=train,
        train_prompts=train_prompts,
        validation_prompts=validation_prompts,
        evaluation=evaluation,
        prompt_sets=prompt_sets,
        focus_prompts=focus_prompts,
        answers=builders[config.prompts.train].answer_words,
        fillers=fillers,
        quarantines=quarantines,
        notices=notices,
        lexicon=lexicon,
    )


def _builders(config: Config, tokenizer: Any) -> tuple[dict[str, PromptBuilder], list[Example]]:
    """Builders by template, and the training reviews that they show as demonstrations."""
    settings, labels = config.prompts, tuple(config.data.labels)
    names = list(dict.fromkeys([settings.train, *settings.evaluation]))
    templates = load_templates(settings.file, names, labels)
    shown = _demonstrations(config, PromptBuilder(tokenizer, templates[settings.train], labels, settings.chat))
    return {n: PromptBuilder(tokenizer, t, labels, settings.chat, shown) for n, t in templates.items()}, shown


def _training(
    config: Config,
    builders: Mapping[str, PromptBuilder],
    shown: Sequence[Example],
    quarantines: dict[str, Quarantine],
    learns: bool,
) -> tuple[list[Example], list[Prompt]]:
    """Reviews to train on, and their prompts: all but those that are shown as demonstrations."""
    name, source = config.prompts.train, config.data.train
    title, asked = f"data.train = {source.title}", {name: builders[name]}
    examples, sets = _load(config, source, title, asked, quarantines, labelled=learns)
    ids = {example.example_id for example in shown}  # the reviews themselves may have been cut since
    prompts = [prompt for prompt in sets[name] if prompt.example.example_id not in ids]
    if not prompts:
        raise AfaError(
            f"prompts.demonstrations = {config.prompts.demonstrations}: all {len(shown)} training reviews are "
            "shown as demonstrations, none is left to train on; set fewer"
        )
    return examples, prompts


def _evaluation(
    config: Config, builders: Mapping[str, PromptBuilder], quarantines: dict[str, Quarantine]
) -> tuple[dict[str, list[Example]], dict[str, list[PromptSet]], dict[str, list[Prompt]]]:
    """Of each data set the reviews, what is asked of them under each template, and the prompts whose focus is read."""
    evaluation, prompt_sets, focus_prompts = {}, {}, {}
    for source in config.data.evaluation:
        title = source.title
        evaluation[title], sets = _load(config, source, title, builders, quarantines)
        check_cases(title, evaluation[title])
        prompt_sets[title] = [_prompt_set(config, title, n, builders[n], sets[n]) for n in config.prompts.evaluation]
        focus_prompts[title] = sets[config.prompts.train][: config.evaluation.focus_samples]
    return evaluation, prompt_sets, focus_prompts


def _demonstrations(config: Config, builder: PromptBuilder) -> list[Example]:
    """Of the training reviews that this builder can use; they are not trained on."""
    settings, source = config.prompts, config.data.train
    if not settings.demonstrations:
        return []
    _, sets = _load(config, source, f"data.train = {source.title}", {settings.train: builder}, {})
    usable = [prompt.example for prompt in sets[settings.train]]
    return draw_demonstrations(
        usable,
        tuple(config.data.labels),
        count=settings.demonstrations,
        longest=settings.demonstration_words,
        seed=config.run.seed,
    )


def _load(
    config: Config,
    source: Source,
    title: str,
    builders: Mapping[str, PromptBuilder],
    quarantines: dict[str, Quarantine],
    *,
    labelled: bool = True,
) -> tuple[list[Example], dict[str, list[Prompt]]]:
    """Reviews of a source and their prompts by template. What is set aside is checked source by source."""
    data, found = config.data, Quarantine()
    examples = load_examples(source, data.labels, seed=config.run.seed, quarantine=found, labelled=labelled)
    prompts = {}
    for name, builder in builders.items():
        unusable = Quarantine()
        prompts[name] = build_prompts(
            examples, builder, max_tokens=data.max_tokens, too_long=data.too_long, quarantine=unusable
        )
        if source.spurious and data.too_long == "truncate":
            prompts[name] = _regrouped(prompts[name], source.spurious, unusable)
        found.absorb(unusable)
        if not prompts[name]:
            raise AfaError(f"{title}, template {name!r}: no review is left:\n{found.summary()}")
    try:
        found.check(data.max_bad_rows)
    except AfaError as error:
        raise AfaError(f"{title}: {error}") from None
    quarantines[title] = found
    return examples, prompts


def _regrouped(prompts: list[Prompt], settings: Spurious, quarantine: Quarantine) -> list[Prompt]:
    """The prompts in the groups that their reviews are in after they were cut; counted in the notes."""
    found = []
    for prompt in prompts:
        example = regrouped(prompt.example, settings)
        if example is not prompt.example:
            quarantine.note("spurious.token was cut off with the end of the review", example.example_id)
        found.append(replace(prompt, example=example))
    return found


def _validation(
    config: Config, builders: Mapping[str, PromptBuilder], quarantines: dict[str, Quarantine], learns: bool
) -> tuple[list[Example], list[Prompt]]:
    source = config.data.validation
    if source is None:
        return [], []
    name, title = config.prompts.train, _validation_title(config)
    examples, sets = _load(config, source, title, {name: builders[name]}, quarantines, labelled=learns)
    return examples, sets[name]


def _validation_title(config: Config) -> str:
    return f"data.validation = {config.data.validation.title}" if config.data.validation else ""


def _prompt_set(config: Config, title: str, name: str, builder: PromptBuilder, prompts: list[Prompt]) -> PromptSet:
    in_domain, most = domain_examples([prompt.example for prompt in prompts], config.run.seed), config.data.max_tokens
    return PromptSet(
        title,
        name,
        tuple(prompts),
        builder.answer_words,
        content_free=tuple(builder.build_unchecked(example) for example in content_free_examples()),
        in_domain=tuple(text_of_ours(builder, example, most) for example in in_domain),
    )


def _fillers(config: Config, tokenizer: Any) -> tuple[tuple[int, ...], ...]:
    if config.masking.view != "replace":
        return ()
    found = [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in config.masking.fillers]
    if not all(found):
        empty = config.masking.fillers[found.index(())]
        raise AfaError(f"masking.fillers: {empty!r} gives no token; set visible texts such as [' _']")
    return tuple(found)


def _check_duplicates(
    config: Config, train: list[Example], validation: list[Example], evaluation: Mapping[str, list[Example]]
) -> list[str]:
    """Notices of reviews that stand in two sets. Raises AfaError where the settings forbid them."""
    data, title = config.data, _validation_title(config)
    sources = [data.train, *data.evaluation, *([data.validation] if data.validation else [])]
    planted = {source.spurious.token for source in sources if source.spurious}
    train, validation = taken_out(train, planted), taken_out(validation, planted)
    measured = {name: taken_out(examples, planted) for name, examples in evaluation.items()}
    return check_sets(train, validation, measured, validation_title=title, policy=data.duplicates_across)
