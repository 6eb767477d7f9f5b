"""Reviews of an evaluation set that stand in the training set too: what was trained on can't be measured fairly."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Literal

from afa_llm.errors import AfaError
from afa_llm.records import Example


def normalised(text: str) -> str:
    """Letters and digits alone, case folded, so that spacing, quotes and tokenisation make no difference (our choice).

    A text without any (emoji only) counts as it is, white space left out.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(filter(str.isalnum, folded)) or "".join(folded.split())


def find_duplicates(train: Iterable[Example], evaluation: Iterable[Example]) -> list[str]:
    """Ids of the evaluation reviews whose normalised text stands in `train`, in their order."""
    seen = {normalised(example.text) for example in train}
    return [example.example_id for example in evaluation if normalised(example.text) in seen]


def check_overlap(
    train: Iterable[Example],
    evaluation: Iterable[Example],
    *,
    title: str,
    policy: Literal["warn", "error", "ignore"],
) -> str | None:
    """The warning to print for evaluation set `title`, None where there is none. Raises AfaError with policy error."""
    if policy == "ignore":
        return None
    evaluation = list(evaluation)
    found = find_duplicates(train, evaluation)
    if not found:
        return None
    shown = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
    message = f"{title}: {len(found)} of {len(evaluation)} reviews stand in the training set too ({shown})"
    if policy == "error":
        raise AfaError(f"{message}; remove them, or set data.duplicates_across=warn")
    return message + "; its scores are flattered by what was trained on"
