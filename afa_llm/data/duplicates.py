"""Reviews that stand in two sets: what was trained on, or chosen by, can't be measured fairly."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Literal

from afa_llm.data.words import blank_breaks
from afa_llm.errors import AfaError
from afa_llm.records import Example

Policy = Literal["warn", "error", "ignore"]


def normalised(text: str) -> str:
    """Letters and digits alone, case folded, so that spacing, quotes and tokenisation make no difference (our choice).

    A text without any (emoji only) counts as it is, white space left out. HTML line breaks are spacing: releases of
    IMDB differ in them.
    """
    folded = unicodedata.normalize("NFKC", blank_breaks(text)).casefold()
    return "".join(filter(str.isalnum, folded)) or "".join(folded.split())


def normalised_texts(examples: Iterable[Example]) -> frozenset[str]:
    return frozenset(normalised(example.text) for example in examples)


def find_duplicates(known: Set[str], examples: Iterable[Example]) -> list[str]:
    """Ids of the reviews of `examples` whose normalised text stands in `known`, in their order."""
    return [example.example_id for example in examples if normalised(example.text) in known]


def check_sets(
    train: Sequence[Example],
    validation: Sequence[Example],
    evaluation: Mapping[str, Sequence[Example]],
    *,
    validation_title: str,
    policy: Policy,
) -> list[str]:
    """The warnings to print. Raises AfaError with policy error."""
    if policy == "ignore":
        return []
    trained, chosen = normalised_texts(train), normalised_texts(validation)
    found = [check_overlap(trained, examples, title=title, policy=policy) for title, examples in evaluation.items()]
    effect = "the best step is chosen by what was trained on"
    found.append(check_overlap(trained, validation, title=validation_title, policy=policy, effect=effect))
    effect = "its scores are flattered where training.adapter=best chooses by them"
    found += [
        check_overlap(chosen, examples, title=title, policy=policy, known_as="the validation set", effect=effect)
        for title, examples in evaluation.items()
    ]
    return [message for message in found if message]


def check_overlap(
    known: Set[str],
    examples: Sequence[Example],
    *,
    title: str,
    policy: Literal["warn", "error"],
    known_as: str = "the training set",
    effect: str = "its scores are flattered by what was trained on",
) -> str | None:
    """The warning to print for the set `title`, None where there is none. Raises AfaError with policy error."""
    found = find_duplicates(known, examples)
    if not found:
        return None
    shown = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
    message = f"{title}: {len(found)} of {len(examples)} reviews stand in {known_as} too ({shown})"
    if policy == "error":
        raise AfaError(f"{message}; remove them, or set data.duplicates_across=warn")
    return f"{message}; {effect}"
