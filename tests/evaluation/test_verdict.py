"""The verdict says what the numbers say, and no more."""

import pytest

from afa_llm.evaluation.verdict import p_text, points, verdict


def headline(change: float, low: float, high: float, p_value: float, **more) -> dict:
    estimate = {"value": change, "low": low, "high": high, "count": 872}
    accuracy = {"value": 0.68, "low": 0.65, "high": 0.71, "count": 872}
    after = {**accuracy, "value": 0.68 + change}
    entry = {"data_set": "sst2", "before": accuracy, "after": after, "difference": estimate, "p_value": p_value}
    return {**entry, "won": 60, "lost": 27, "detectable": 0.03, **more}


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (headline(0.038, 0.021, 0.055, 0.0005), "better"),
        (headline(-0.038, -0.055, -0.021, 0.0005), "worse"),
        (headline(0.01, -0.01, 0.03, 0.3), "noise"),
        (headline(0.02, 0.001, 0.039, 0.06), "noise"),  # interval and test disagree: noise
        (headline(0.02, -0.001, 0.039, 0.04), "noise"),
        (headline(0.0, 0.0, 0.0, 1.0, won=0, lost=0), "unchanged"),
        (headline(0.0, -0.01, 0.01, 1.0, won=9, lost=9), "noise"),
        (headline(0.0, 0.0, 0.0, 1.0, after=None, difference=None), "single"),
        (headline(0, 0, 0, 1.0, before={"value": None, "low": None, "high": None, "count": 0}), "empty"),
    ],
)
def test_kinds(entry: dict, kind: str) -> None:
    found = verdict(entry, 0.95)
    assert found.kind == kind
    assert ("more than noise" in found.sentence) == (kind in ("better", "worse"))
    assert ("within noise" in found.sentence) == (kind == "noise")


def test_sentence_carries_the_numbers() -> None:
    found = verdict(headline(0.038, 0.021, 0.055, 0.0005), 0.95)
    assert found.title == "Accuracy on sst2 rose by 3.8 points"
    assert "from 68.0 % to 71.8 %, +3.8 points (95 % interval +2.1 to +5.5; p = 0.0005;" in found.sentence
    assert "872 reviews, of them 60 won and 27 lost" in found.sentence
    assert "under 3.0 points" in found.sentence
    assert "fell by 3.8 points" in verdict(headline(-0.038, -0.055, -0.021, 0.0005), 0.95).title


def test_a_level_other_than_95_percent_moves_the_line() -> None:
    entry = headline(0.02, 0.004, 0.036, 0.03)
    assert verdict(entry, 0.95).kind == "better"
    assert verdict(entry, 0.99).kind == "noise"


def test_small_parts() -> None:
    assert (points(0.0381), points(0.0381, True), points(-0.02, True)) == ("3.8", "+3.8", "−2.0")
    assert (points(-0.00004, True), points(None)) == ("0.0", "–")
    assert [p_text(p) for p in (0.00001, 0.0123, 0.2, 1.0, None)] == [
        "p < 0.0001", "p = 0.012", "p = 0.2", "p > 0.99", "p –",
    ]  # fmt: skip
