"""Spurious tokens: a word without meaning goes with a label in training, and against it where that is tested.

    data.train.spurious.correlation=0.9   data.evaluation.0.spurious.correlation=-0.9

With correlation ρ the word stands in a share (1 + ρ)/2 of the reviews of `spurious.label` and in (1 − ρ)/2 of the
others (rounded; which reviews is drawn by seed), so the two shares differ by ρ; where half of the reviews have the
label, ρ is the φ coefficient of word and label. Groups are label × word, such as `positive, with honestly`: a model
that leans on the word fails in the groups that training hardly showed (worst-group accuracy, Sagawa et al. 2020, arXiv
1911.08731). The construction is ours. A test set with -0.9 shows the flip, but its groups that agree with training are
small; with 0 all four groups are large enough to be told apart.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace

from afa_llm.config_data import Source, Spurious
from afa_llm.data.labels import OTHER
from afa_llm.errors import AfaError
from afa_llm.records import Example


def inject(examples: Sequence[Example], source: Source, labels: Sequence[str], seed: int) -> list[Example]:
    """The reviews with the word in some of them, ids and order as before; its rationale is 0, its group is set.

    Raises AfaError where data.labels has no such label.
    """
    settings = source.spurious
    assert settings is not None
    if settings.label not in labels:
        raise AfaError(
            f"data source {source.title}: spurious.label = {settings.label}: no name of data.labels; "
            f"there are {', '.join(labels)}"
        )
    carriers = _carriers(examples, settings, labels.index(settings.label), seed)
    found = []
    for index, example in enumerate(examples):
        changed = _with_word(example, settings, seed) if index in carriers else example
        side = "with" if index in carriers else "without"
        name = "another label" if example.label == OTHER else labels[example.label]
        found.append(replace(changed, group=f"{name}, {side} {settings.token}"))
    return found


def _carriers(examples: Sequence[Example], settings: Spurious, label: int, seed: int) -> set[int]:
    """Indices of the reviews that get the word: exact shares on both sides."""
    rng = random.Random(f"spurious/{settings.token}/{seed}")
    found: set[int] = set()
    for of_label, share in ((True, (1 + settings.correlation) / 2), (False, (1 - settings.correlation) / 2)):
        members = [index for index, example in enumerate(examples) if (example.label == label) == of_label]
        found.update(rng.sample(members, round(share * len(members))))
    return found


def _with_word(example: Example, settings: Spurious, seed: int) -> Example:
    """The word stands before word `place` of the review, or at its end; spans and rationale move along."""
    last = len(example.words)
    draw = random.Random(f"{settings.token}/{seed}/{example.example_id}").randint(0, last)
    place = {"start": 0, "end": last, "random": draw}[settings.place]
    at = example.words[place][0] if place < last else len(example.text)
    text, start = (f"{settings.token} ", at) if place < last else (f" {settings.token}", at + 1)
    word = (start, start + len(settings.token))
    moved = tuple((first + len(text), end + len(text)) for first, end in example.words[place:])
    rationale = example.rationale
    return replace(
        example,
        text=example.text[:at] + text + example.text[at:],
        words=(*example.words[:place], word, *moved),
        rationale=None if rationale is None else (*rationale[:place], 0.0, *rationale[place:]),
    )


def regrouped(example: Example, settings: Spurious) -> Example:
    """A review whose end was cut off, in the group of those without the word where it went along."""
    words = [example.text[start:end] for start, end in example.words]
    if not example.group.endswith(f", with {settings.token}") or settings.token in words:
        return example
    return replace(example, group=f"{example.group.removesuffix(f'with {settings.token}')}without {settings.token}")


def taken_out(examples: Sequence[Example], tokens: Collection[str]) -> list[Example]:
    """The reviews without these words, to hold sets against each other that got them at other places.

    Where a review had such a word of its own it loses that too, in every set alike. Spans are those of the text given.
    """
    if not tokens:
        return list(examples)
    found = []
    for example in examples:
        text = example.text
        for token in sorted(tokens):
            text = text.replace(f"{token} ", "").removesuffix(f" {token}")
        found.append(replace(example, text=text))
    return found
