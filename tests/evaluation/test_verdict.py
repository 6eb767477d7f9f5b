"""The verdict says what the numbers say, and no more."""

import pytest

from afa_llm.evaluation.verdict import fixed, p_number, p_text, points, verdict


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


def _ranking(change: float, low: float, high: float) -> dict:
    before, after = ({"value": value, "low": 0.8, "high": 0.9} for value in (0.85, 0.85 + change))
    return {"before": before, "after": after, "difference": {"value": change, "low": low, "high": high}}


@pytest.mark.parametrize(
    ("change", "ranking", "said"),
    [
        (0.038, (0.02, 0.01, 0.03), "It also ranks the reviews better, whatever the threshold (AUROC 0.850 to 0.870,"),
        (0.038, (0.002, -0.01, 0.014), "But it does not rank the reviews better (AUROC 0.850 to 0.852, +0.002, 95 %"),
        (0.038, (-0.02, -0.03, -0.01), "But it does not rank the reviews better but worse (AUROC 0.850 to 0.830"),
        (-0.038, (-0.02, -0.03, -0.01), "It also ranks the reviews worse"),
        (-0.038, (0.002, -0.01, 0.014), "the change may be no more than where the line between the labels falls."),
        (0.0, (-0.02, -0.03, -0.01), "Yet it ranks the reviews worse than before, whatever the threshold"),
        (0.0, (0.002, -0.01, 0.014), "Neither are the reviews ranked otherwise beyond noise (AUROC 0.850 to 0.852"),
        (0.0, (0.002, -0.01, 0.014), "interval −0.010 to +0.014)"),
    ],
)
def test_what_no_threshold_touches_stands_beside_it(change: float, ranking: tuple, said: str) -> None:
    found = verdict(headline(change, change - 0.01, change + 0.01, 0.0005, ranking=_ranking(*ranking)), 0.95)
    assert said in found.sentence
    assert said in found.brief
    assert said.removesuffix(".") not in verdict(headline(change, change - 0.01, change + 0.01, 0.0005), 0.95).sentence


def test_unchanged_answers_may_be_ranked_otherwise() -> None:
    entry = headline(0.0, 0.0, 0.0, 1.0, won=0, lost=0, ranking=_ranking(0.02, 0.01, 0.03))
    assert "Yet it ranks the reviews better than before" in verdict(entry, 0.95).sentence


def test_one_label_has_no_ranking_to_speak_of() -> None:
    assert "AUROC" not in verdict(headline(0.038, 0.021, 0.055, 0.0005, ranking=None), 0.95).sentence


def test_a_level_other_than_95_percent_moves_the_line() -> None:
    entry = headline(0.02, 0.004, 0.036, 0.03)
    assert verdict(entry, 0.95).kind == "better"
    assert verdict(entry, 0.99).kind == "noise"


def test_small_parts() -> None:
    assert (points(0.0381), points(0.0381, True), points(-0.02, True)) == ("3.8", "+3.8", "−2.0")
    assert (points(-0.00004, True), points(None)) == ("0.0", "–")
    assert (fixed(0.0381), fixed(0.0381, True), fixed(-0.02), fixed(1.25, digits=1)) == (
        "0.038", "+0.038", "−0.020", "1.2",
    )  # fmt: skip
    assert (fixed(-0.0004, True), fixed(None)) == ("0.000", "–")
    assert [p_text(p) for p in (0.00001, 0.0123, 0.2, 1.0, None)] == [
        "p < 0.0001", "p = 0.012", "p = 0.2", "p > 0.99", "p –",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("p", "told"),
    [(0.0496, "0.0496"), (0.049999, "0.049999"), (0.0504, "0.05"), (0.00996, "0.00996"), (0.0123, "0.012"), (1.0, "1")],
)
def test_no_p_is_rounded_up_to_a_level_that_it_stays_below(p: float, told: str) -> None:
    """A star, or `more than noise`, stood beside p = 0.05."""
    assert p_text(p) == ("p > 0.99" if p == 1 else f"p = {told}")
    assert p_number(p) == told
