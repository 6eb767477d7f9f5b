"""Reviews with their answers that stand before the review in a few-shot prompt (Brown et al. 2020).

Which ones is our choice: drawn by seed from the training reviews, as many of each label as of the others, short ones.
They are part of the template: their words are never eligible for focus or masks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from afa_llm.errors import AfaError
from afa_llm.records import Example

SEPARATOR = "\n\n"
"""Between a demonstration's answer and what follows, in raw prompts."""


def draw_demonstrations(
    examples: Sequence[Example], labels: Sequence[str], *, count: int, longest: int, seed: int
) -> list[Example]:
    """`count` reviews of at most `longest` words, the labels in turn, then shuffled: a pure function of its arguments.

    Where `count` is no multiple of the labels, the first drawn labels have one more. Raises AfaError where a label has
    too few short reviews.
    """
    rng = random.Random(f"demonstrations/{seed}")
    classes = rng.sample(range(len(labels)), len(labels))
    wanted = {label: len(range(place, count, len(labels))) for place, label in enumerate(classes)}
    chosen: list[Example] = []
    for label, number in wanted.items():
        short = [e for e in examples if e.label == label and len(e.words) <= longest]
        if len(short) < number:
            raise AfaError(
                f"prompts.demonstrations = {count}: needs {number} training reviews labelled {labels[label]!r} of at "
                f"most {longest} words, there are {len(short)}; set fewer, or raise prompts.demonstration_words"
            )
        chosen += rng.sample(short, number)
    return rng.sample(chosen, len(chosen))
