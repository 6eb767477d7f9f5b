import re
from decimal import Decimal

import pytest

from afa_llm.data.labels import LabelMapping
from afa_llm.errors import AfaError

MAPPING = LabelMapping({"negative": (0, "negative", "neg"), "positive": (1, "positive", 4.5)})


@pytest.mark.parametrize(
    "value",
    [
        1,
        1.0,
        True,
        "1",
        " 1.0 ",
        "1.",
        "+1",
        "01",
        "true",
        "positive",
        " positive\n",
        4.5,
        Decimal("1.0"),
        Decimal("4.5"),
    ],
)
def test_values_that_mean_positive(value: object) -> None:
    assert MAPPING.find(value) == 1


@pytest.mark.parametrize("value", [0, -0.0, False, "0", "0.00", "False", "neg"])
def test_values_that_mean_negative(value: object) -> None:
    assert MAPPING.find(value) == 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (" Positive ", "unknown label ' Positive '; data.labels knows .*did you mean 'positive'"),
        (2, "unknown label 2; data.labels knows negative: .0, 'negative', 'neg'., positive: .1, 'positive', 4.5.$"),
        ("", "label is missing"),
        (None, "label is missing"),
        (float("nan"), "label is missing"),
        (float("inf"), "label is missing"),
        ([1], "label has type list"),
        ({"a": 1}, "label has type dict"),
        ("nan", "unknown label 'nan'"),
        (1e300, "unknown label 1e.300"),
        ("9" * 5000, "unknown label '999"),
    ],
)
def test_unknown_values_are_explained(value: object, reason: str) -> None:
    assert MAPPING.find(value) is None
    explained, kind = MAPPING.explain(value)
    assert re.match(reason, explained)
    assert len(kind) < 90


def test_two_classes_cannot_claim_one_value() -> None:
    with pytest.raises(AfaError, match=r"data\.labels\.b: '1\.0' means 'a' too"):
        LabelMapping({"a": (1,), "b": ("1.0",)})


def test_a_value_that_matches_nothing_is_refused() -> None:
    with pytest.raises(AfaError, match="matches no label"):
        LabelMapping({"a": (1,), "b": ("  ",)})
