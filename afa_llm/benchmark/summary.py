"""The benchmark in plain sentences: what may be claimed for the shown arm, and which goals were reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from afa_llm.benchmark.figures import difference_kind
from afa_llm.evaluation.verdict import fixed, points

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """`kind`: better, worse, same."""

    kind: str
    title: str
    text: str


def headline(content: Content, shown: str) -> Line:
    """Whether the shown arm's accuracy differs from the reference's by more than noise: on which sets, else on average.

    On average only where both intervals, over seeds and over reviews, leave out 0 on the same side. Where AUROC does
    not show what accuracy does, or shows what accuracy does not, that is said.
    """
    titles = {arm["name"]: arm["title"] for arm in content["arms"]}
    name, reference = titles[shown], titles[content["reference"]]
    rows = [r for r in content["comparisons"] if (r["arm"], r["metric"]) == (shown, "accuracy")]
    if not rows:
        return Line(
            "same", f"{name} is not compared yet", f"There is no finished pair of cells of {name} and {reference}."
        )
    claims = {kind: [r["set"] for r in rows if difference_kind(r) == kind] for kind in ("better", "worse")}
    parts = [f"{_words(kind)} on {_listed(sets)}" for kind, sets in claims.items() if sets]
    kinds = [kind for kind, sets in claims.items() if sets]
    if parts:
        title = f"{name} is {' and '.join(parts)} than {reference}"
        note = _threshold([silent for kind in kinds for silent in _unranked(content, shown, kind, claims[kind])])
    elif kind := _kind_of_average(_average(content, shown)):
        kinds, title = [kind], f"{name} is {_words(kind)} than {reference} on average, on no set alone"
        ranking = (_average(content, shown) or {})["auroc"]
        note = _threshold(["average"] if ranking and _side(ranking) != kind else [])
    else:
        title, note = f"No difference in accuracy beyond noise between {name} and {reference}", ""
    text = _sentence(content, rows, shown, name, reference)
    silent = [row["set"] for row in rows if difference_kind(row) == "same"]
    notes = [text, note, *_only_ranked(content, shown, silent)]
    return Line(kinds[0] if len(kinds) == 1 else "same", title, " ".join(filter(None, notes)))


def _unranked(content: Content, shown: str, kind: str, sets: list[str]) -> list[str]:
    """Those of the sets with an AUROC that does not differ, beyond noise, to the same side as accuracy does."""
    rows = {r["set"]: r for r in content["comparisons"] if (r["arm"], r["metric"]) == (shown, "auroc")}
    return [name for name in sets if name in rows and difference_kind(rows[name]) != kind]


def _only_ranked(content: Content, shown: str, sets: list[str]) -> list[str]:
    """What AUROC shows on sets whose accuracy shows nothing."""
    rows = [r for r in content["comparisons"] if (r["arm"], r["metric"]) == (shown, "auroc") and r["set"] in sets]
    found = {kind: [r for r in rows if difference_kind(r) == kind] for kind in ("better", "worse")}
    return [
        f"It ranks the reviews {kind}, whatever the threshold, on "
        + _listed(f"{r['set']} (AUROC {fixed(r['over_seeds']['value'], True)})" for r in some)
        + "."
        for kind, some in found.items()
        if some
    ]


def _threshold(where: list[str]) -> str:
    """A gain in accuracy without one in AUROC may be where the threshold falls, which a calibration moves as well."""
    if not where:
        return ""
    return (
        f"On {_listed(where)} the AUROC does not show this: the answers may rank the reviews no differently, and "
        "only the threshold between the labels fall elsewhere."
    )


def _average(content: Content, shown: str) -> Content | None:
    return next((row for row in content["averages"] if row["arm"] == shown), None)


def _kind_of_average(average: Content | None) -> str:
    """better or worse; empty where nothing may be claimed."""
    sides = {_side(average[name]) for name in ("over_seeds", "over_reviews")} if average else {""}
    return sides.pop() if len(sides) == 1 else ""


def _side(estimate: Content) -> str:
    """better or worse where the interval leaves out 0; empty where it does not, or where there is none."""
    if estimate["low"] is None:
        return ""
    return "better" if estimate["low"] > 0 else "worse" if estimate["high"] < 0 else ""


def _listed(names: Iterable[str]) -> str:
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


def _words(kind: str) -> str:
    return {"better": "more accurate", "worse": "less accurate"}[kind]


def _sentence(content: Content, rows: list[Content], shown: str, name: str, reference: str) -> str:
    average = _average(content, shown)
    if average:
        found, where = average["over_seeds"], f"averaged over {average['sets']} evaluation sets"
    else:
        found, where = rows[0]["over_seeds"], f"on {rows[0]['set']}"
    text = f"Accuracy of {name} less that of {reference}, {where}: {points(found['value'], True)} points"
    if found["low"] is None and found["count"] > 1:
        same = f"{text}, the same for all {found['count']} seeds"
        claimed = any(row["stars"] for row in rows)  # where every seed repeats the same answers, by reviews alone
        return f"{same}." if claimed else f"{same}: how far other seeds would be off is not known."
    if found["low"] is None and any(row["over_seeds"]["count"] > 1 for row in rows):
        return " ".join([f"{text}. One seed has no interval, and only one has all sets.", *_unseen(rows)])
    if found["low"] is None:
        return f"{text}. One seed has no interval, so nothing is claimed."
    level = f"{100 * content['confidence']:g} % interval"
    text += f" ({level} over {found['count']} seeds {points(found['low'], True)} to {points(found['high'], True)})."
    return " ".join([text, *_unseen(rows)])


def _unseen(rows: list[Content]) -> list[str]:
    """What could not have been seen. At least, because each test is taken alone and before Holm."""
    known = {row["set"]: row["detectable"] for row in rows if row["detectable"] is not None}
    none = [row["set"] for row in rows if row["detectable"] is None and not row["stars"]]
    found = []
    if known:
        where = "" if len(rows) == 1 else " on every set" if len(known) == len(rows) else f" on {_listed(known)}"
        smallest = points(max(known.values()))
        found.append(f"To be seen four times in five{where}, a difference must be at least {smallest} points.")
    if none:
        found.append(f"On {_listed(none)} no difference could have been told from noise that often.")
    return found


def goal_lines(content: Content) -> list[Line]:
    """One line for each goal: reached or not, the value, and whether its interval leaves out 0."""
    whole = all(cell["finished"] for cell in content["cells"])
    return [_goal(goal, content["confidence"], whole) for goal in content["goals"]]


def _in(unit: str, value: float, more: int) -> str:
    """A difference in its unit: points of a share, percent of what it was, or the bare number. `more`: digits."""
    if not unit:
        return fixed(value, True, 3 + more)
    return f"{fixed(100 * value, True, 1 + more)} {'points' if unit == 'points' else '%'}"


def _more_digits(unit: str, goal: Content) -> int:
    """How many digits more than usual it takes to see what was judged: the value against what was wanted, the interval
    against 0. At most three: closer ones are told as the same."""
    value = goal["value"] or {"value": None, "low": None, "high": None}
    wanted = goal["at_least"] if goal["at_most"] is None else goal["at_most"]
    pairs = [(value["value"], wanted), (value["low"], 0.0), (value["high"], 0.0)]
    unlike = [(one, other) for one, other in pairs if one is not None and one != other]
    enough = (more for more in range(3) if all(_in(unit, one, more) != _in(unit, other, more) for one, other in unlike))
    return next(enough, 3)


def _goal(goal: Content, confidence: float, whole: bool) -> Line:
    value, unit = goal["value"], goal["unit"]
    least, most, more = goal["at_least"], goal["at_most"], _more_digits(unit, goal)
    wanted = f"wanted at least {_in(unit, least, more)}" if most is None else f"wanted at most {_in(unit, most, more)}"
    if not value:
        none = "no seed has this metric of both on all of these sets" if whole else "not measured yet"
        share = " (or what it is a share of is not above 0)" if unit == "percent" else ""
        return Line("same", goal["claim"], f"{wanted}: {none}{share}")
    text = f"{wanted}, found {_in(unit, value['value'], more)}"
    if value["low"] is not None:
        low, high = (_in(unit, value[end], more) for end in ("low", "high"))
        text += f" ({100 * confidence:g} % interval {low} to {high})"
    if goal["reached"] and goal["shown"]:
        return Line("better", goal["claim"], f"{text}: reached")
    if goal["reached"]:
        return Line("same", goal["claim"], f"{text}: that much, but it may be noise")
    return Line("worse", goal["claim"], f"{text}: not reached")
