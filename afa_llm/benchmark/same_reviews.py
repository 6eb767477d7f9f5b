"""Whether two arms answer the same reviews: asked of what they will read, before anything runs, and of the answers."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afa_llm.errors import AfaError
from afa_llm.evaluation.prompted_sentiment import PromptSet


@dataclass(frozen=True)
class Reviews:
    """Those of one evaluation set that are answered under every template: id -> `fingerprint`; how many templates."""

    text: Mapping[str, int]
    templates: int


def fingerprint(label: int, text: str) -> int:
    """Tells a review from another one of the same id."""
    return zlib.crc32(f"{label} {text}".encode("utf-8", "replace"))


def asked(prompt_sets: Sequence[PromptSet]) -> Reviews:
    """What the prompts of one evaluation set, a set of them for each template, will ask."""
    examples = [{prompt.example.example_id: prompt.example for prompt in each.prompts} for each in prompt_sets]
    everywhere = [name for name in examples[0] if all(name in others for others in examples)]
    found = {name: fingerprint(examples[0][name].label, examples[0][name].text) for name in everywhere}
    return Reviews(found, len(prompt_sets))


def check_same(new: Reviews, old: Reviews, where: str) -> None:
    """Raises AfaError that begins with `where`, two arms on an evaluation set, where they differ."""
    if new.text != old.text or new.templates != old.templates:
        odd = [i for i in {**old.text, **new.text} if old.text.get(i) != new.text.get(i)]
        what = f"{len(odd)} reviews differ, such as {odd[0]!r}" if odd else "another number of templates"
        raise AfaError(
            f"{where}: the arms do not answer the same reviews ({what}); give all arms of a data set the same "
            "data.evaluation and prompts.evaluation, and data.max_tokens that their longest prompts fit in"
        )
