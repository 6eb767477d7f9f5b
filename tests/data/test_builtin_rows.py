"""Reviews that come with the package, under the labels of a run."""

from __future__ import annotations

from typing import Any

import pytest
from row_files import load

from afa_llm.config_data import Source
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.sources import load_examples
from afa_llm.errors import AfaError


def test_unknown_builtin_and_split() -> None:
    with pytest.raises(AfaError, match="there are builtin:planted, builtin:checklist"):
        load("builtin:plantd")
    with pytest.raises(AfaError, match="no split 'dev'; there are train, validation, test"):
        load("builtin:planted", split="dev")


def test_the_planted_data_follow_the_mapping() -> None:
    plain = load("builtin:planted", split="validation")
    turned = load_examples(
        Source(split="validation"), {"good": ("positive",), "bad": ("negative",)}, seed=0, quarantine=Quarantine()
    )
    assert [e.label for e in plain] == [1 - e.label for e in turned]
    assert plain[0].example_id == "planted_validation/1"
    with pytest.raises(AfaError, match=r"data\.labels \(a, b\) lacks 0"):
        load_examples(Source(), {"a": (1,), "b": (2,)}, seed=0, quarantine=Quarantine())


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"negative": (0,), "neutral": (1,), "positive": (2,)}, {0, 2}),
        ({"very_negative": (0,), "negative": (1,), "neutral": (2,), "positive": (3,), "very_positive": (4,)}, {1, 3}),
        ({"bad": (0, "negative"), "middling": (1,), "good": (2, "positive")}, {0, 2}),
    ],
)
@pytest.mark.parametrize("path", ["builtin:planted", "builtin:checklist"])
def test_builtin_reviews_keep_their_meaning_among_more_classes(
    path: str, labels: dict[str, tuple[Any, ...]], expected: set[int]
) -> None:
    examples = load_examples(Source(path=path), labels, seed=0, quarantine=Quarantine())
    assert {e.label for e in examples} == expected
