"""The headline and the goals of a benchmark say what may be claimed, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from afa_llm.benchmark.summary import goal_lines, headline

SEEDS = {"value": 0.03, "low": 0.004, "high": 0.059, "count": 3}
REVIEWS = {"value": 0.03, "low": 0.02, "high": 0.04, "count": 900}
NOISE = {"value": 0.03, "low": -0.01, "high": 0.07, "count": 3}
UNDER_WAY = [{"finished": True}, {"finished": False}]
NO_INTERVAL = {"value": 0.03, "low": None, "high": None, "count": 1}


def turned(estimate: dict[str, Any]) -> dict[str, Any]:
    return estimate | {"value": -estimate["value"], "low": -estimate["high"], "high": -estimate["low"]}


def content(seeds: dict[str, Any], reviews: dict[str, Any], stars: str = "") -> dict[str, Any]:
    """Two sets, on the first of which something may be claimed where there are stars."""
    row = {"arm": "afa", "metric": "accuracy", "over_seeds": NOISE, "detectable": 0.05, "p_holm": 0.2}
    return {
        "arms": [{"name": "ce", "title": "CE"}, {"name": "afa", "title": "AFA"}],
        "reference": "ce",
        "confidence": 0.95,
        "comparisons": [row | {"set": "films", "stars": stars}, row | {"set": "books", "stars": ""}],
        "averages": [{"arm": "afa", "sets": 2, "over_seeds": seeds, "over_reviews": reviews, "auroc": None}],
    }


@pytest.mark.parametrize(
    ("seeds", "reviews", "kind", "title"),
    [
        (SEEDS, REVIEWS, "better", "AFA is more accurate than CE on average, on no set alone"),
        (turned(SEEDS), turned(REVIEWS), "worse", "AFA is less accurate than CE on average, on no set alone"),
        (NOISE, REVIEWS, "same", "No difference in accuracy beyond noise between AFA and CE"),
        (NOISE, NOISE, "same", "No difference in accuracy beyond noise between AFA and CE"),
        (SEEDS, NOISE, "same", "No difference in accuracy beyond noise between AFA and CE"),
        (turned(SEEDS), REVIEWS, "same", "No difference in accuracy beyond noise between AFA and CE"),
        (NO_INTERVAL, REVIEWS, "same", "No difference in accuracy beyond noise between AFA and CE"),
    ],
)
def test_an_average_is_claimed_where_both_intervals_leave_out_0(
    seeds: dict[str, Any], reviews: dict[str, Any], kind: str, title: str
) -> None:
    found = headline(content(seeds, reviews), "afa")
    assert (found.kind, found.title) == (kind, title)


@pytest.mark.parametrize(("count", "told"), [(1, "One seed has no interval"), (3, ", the same for all 3 seeds: ")])
def test_why_there_is_no_interval(count: int, told: str) -> None:
    assert told in headline(content(NO_INTERVAL | {"count": count}, REVIEWS), "afa").text


@pytest.mark.parametrize("count", [1, 3])
def test_nobody_says_beside_a_claim_that_none_is_made(count: int) -> None:
    """Of a matrix under way: three seeds of films are done, of books one. And where every seed repeats its answers."""
    found = headline(content(NO_INTERVAL | {"count": count}, REVIEWS, "★"), "afa")
    assert found.title == "AFA is more accurate on films than CE"
    assert "nothing is claimed" not in found.text
    assert "not known" not in found.text


def test_of_one_seed_nothing_is_claimed() -> None:
    found = content(NO_INTERVAL, REVIEWS)
    rows = [row | {"over_seeds": NO_INTERVAL} for row in found["comparisons"]]
    told = headline(found | {"comparisons": rows}, "afa").text
    assert told.endswith("+3.0 points. One seed has no interval, so nothing is claimed.")


@pytest.mark.parametrize(
    ("films", "books", "told"),
    [
        (0.05, 0.07, "To be seen four times in five on every set, a difference must be at least 7.0 points."),
        (0.05, None, "four times in five on films, a difference must be at least 5.0 points. On books no difference"),
        (None, None, " to +5.9). On films and books no difference could have been told from noise that often."),
    ],
)
def test_what_goes_unseen(films: float | None, books: float | None, told: str) -> None:
    found = content(SEEDS, REVIEWS)
    rows = [row | {"detectable": size} for row, size in zip(found["comparisons"], (films, books), strict=True)]
    assert told in headline(found | {"comparisons": rows}, "afa").text


def test_sets_are_listed_as_words() -> None:
    found = content(SEEDS, REVIEWS)
    row = found["comparisons"][0]
    rows = [row | {"set": name, "detectable": None} for name in ("films", "books", "songs")]
    assert " On films, books and songs no difference" in headline(found | {"comparisons": rows}, "afa").text


def test_of_a_set_with_a_claim_nobody_says_that_none_could_be_made() -> None:
    found = content(SEEDS, REVIEWS, "★")
    rows = [row | {"detectable": None} for row in found["comparisons"]]
    assert " On books no difference" in headline(found | {"comparisons": rows}, "afa").text


def test_a_set_that_may_be_claimed_comes_before_the_average() -> None:
    assert (
        headline(content(turned(SEEDS), turned(REVIEWS), "★"), "afa").title == "AFA is more accurate on films than CE"
    )


NO_STAR, WORSE = {"stars": "", "over_seeds": SEEDS}, {"stars": "★", "over_seeds": turned(SEEDS)}
NOT_SHOWN = "On films the AUROC does not show this: "


@pytest.mark.parametrize(
    ("ranking", "told"),
    [(NO_STAR, True), (WORSE, True), ({"stars": "★", "over_seeds": SEEDS}, False), (None, False)],
)
def test_a_gain_in_accuracy_that_the_ranking_does_not_show_is_told(ranking: dict[str, Any] | None, told: bool) -> None:
    found = content(SEEDS, REVIEWS, "★")
    if ranking:
        found["comparisons"].append({"arm": "afa", "metric": "auroc", "set": "films"} | ranking)
    found["comparisons"].append({"arm": "afa", "metric": "auroc", "set": "books"} | NO_STAR)  # nothing claimed there
    assert (NOT_SHOWN in headline(found, "afa").text) == told


@pytest.mark.parametrize(
    ("seeds", "ranking", "told"),
    [
        (SEEDS, NOISE, True),
        (SEEDS, turned(SEEDS), True),
        (SEEDS, SEEDS, False),
        (SEEDS, None, False),
        (turned(SEEDS), SEEDS, True),
        (turned(SEEDS), turned(SEEDS), False),
        (NOISE, NOISE, False),
    ],
)
def test_so_it_is_of_a_gain_on_average(seeds: dict[str, Any], ranking: dict[str, Any] | None, told: bool) -> None:
    reviews = turned(REVIEWS) if seeds["value"] < 0 else REVIEWS
    found = content(seeds, reviews)
    found["averages"][0]["auroc"] = ranking
    assert ("On average the AUROC does not show this: " in headline(found, "afa").text) == told


@pytest.mark.parametrize(
    ("films", "books", "told"),
    [
        (WORSE, NO_STAR, "It ranks the reviews worse, whatever the threshold, on films (AUROC −0.030)."),
        ({"stars": "★", "over_seeds": SEEDS}, NO_STAR, "ranks the reviews better, whatever the threshold, on films ("),
        (WORSE, WORSE, "on films (AUROC −0.030) and books (AUROC −0.030)."),
        (NO_STAR, NO_STAR, ""),
    ],
)
def test_a_ranking_that_accuracy_does_not_show_is_told(films: dict, books: dict, told: str) -> None:
    found = content(NOISE, NOISE)
    found["comparisons"] += [
        {"arm": "afa", "metric": "auroc", "set": name} | row for name, row in (("films", films), ("books", books))
    ]
    text = headline(found, "afa").text
    assert told in text if told else "ranks" not in text


def test_where_accuracy_is_claimed_the_ranking_is_not_told_twice() -> None:
    found = content(SEEDS, REVIEWS, "★")
    found["comparisons"].append({"arm": "afa", "metric": "auroc", "set": "films"} | WORSE)
    text = headline(found, "afa").text
    assert NOT_SHOWN in text and "ranks the reviews" not in text


def test_a_goal_within_noise_is_not_reached() -> None:
    goal = {"claim": "x", "at_least": 0.01, "at_most": None, "unit": "points", "reached": True, "shown": False}
    value = {"value": 0.02, "low": -0.01, "high": 0.05}
    kinds = [
        goal_lines({"cells": UNDER_WAY, "confidence": 0.95, "goals": [goal | change]})[0].kind
        for change in (
            {"value": value},
            {"value": value, "shown": True},
            {"value": value, "reached": False},
            {"value": None},
        )
    ]
    assert kinds == ["same", "better", "worse", "same"]


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        (
            {},
            "better",
            "wanted at most −5.0 points, found −7.0 points (95 % interval −9.0 points to −5.0 points): reached",
        ),
        ({"shown": False}, "same", "): that much, but it may be noise"),
        ({"reached": False}, "worse", "): not reached"),
        ({"value": None}, "same", "wanted at most −5.0 points: not measured yet"),
    ],
)
def test_a_goal_where_less_is_better(change: dict[str, Any], kind: str, told: str) -> None:
    value = {"value": -0.07, "low": -0.09, "high": -0.05}
    goal = {"claim": "x", "at_least": None, "at_most": -0.05, "unit": "points", "reached": True, "shown": True}
    line = goal_lines({"cells": UNDER_WAY, "confidence": 0.95, "goals": [goal | {"value": value} | change]})[0]
    assert line.kind == kind
    assert line.text.endswith(told)


@pytest.mark.parametrize(
    ("unit", "wanted", "found", "told"),
    [
        ("percent", 0.126, (0.12581, 0.09, 0.15), "wanted at least +12.60 %, found +12.58 % (95 % interval +9.00 % to"),
        ("points", 0.0, (0.0061, 0.0003, 0.012), "found +0.61 points (95 % interval +0.03 points to +1.20 points)"),
        ("points", 0.01, (-0.0001, -0.02, 0.02), "wanted at least +1.0 points, found 0.0 points (95 % interval −2.0"),
        ("", 0.1, (0.0998, 0.05, 0.15), "wanted at least +0.1000, found +0.0998 (95 % interval +0.0500 to +0.1500)"),
        ("points", 0.01, (0.01, 0.01, 0.01), "wanted at least +1.0 points, found +1.0 points (95 %"),
    ],
)
def test_no_goal_is_rounded_until_it_reads_otherwise_than_judged(
    unit: str, wanted: float, found: tuple[float, float, float], told: str
) -> None:
    """`wanted at least +12.6 %, found +12.6 %: not reached`, an interval from +0.0 that leaves out 0, and −0.0."""
    value = dict(zip(("value", "low", "high"), found, strict=True))
    goal = {"claim": "x", "at_least": wanted, "at_most": None, "unit": unit, "reached": True, "shown": True}
    assert told in goal_lines({"cells": UNDER_WAY, "confidence": 0.95, "goals": [goal | {"value": value}]})[0].text


def test_a_goal_that_no_more_cells_can_judge_is_not_told_as_under_way() -> None:
    """Of a metric that a set has not, such as the worst group of reviews without groups."""
    goal = {"claim": "x", "at_least": 0.1, "at_most": None, "unit": "", "reached": None, "shown": None, "value": None}
    told = {"confidence": 0.95, "goals": [goal]}
    assert goal_lines(told | {"cells": UNDER_WAY})[0].text == "wanted at least +0.100: not measured yet"
    (line,) = goal_lines(told | {"cells": UNDER_WAY[:1]})
    assert line.text == "wanted at least +0.100: no seed has this metric of both on all of these sets"
