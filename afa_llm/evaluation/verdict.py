"""Says in one plain sentence whether before and after differ by more than noise.

The rule, fixed here: a difference counts where p < 1 − confidence and the interval leaves out 0. All else is noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """`kind`: better, worse, noise, unchanged, single (one phase only) or empty. `title` is short."""

    kind: str
    title: str
    sentence: str


def verdict(headline: Mapping[str, Any], confidence: float) -> Verdict:
    """The verdict on one entry of results.json's `headline`."""
    name = headline.get("data_set") or "the data set"
    before, after, difference = headline.get("before"), headline.get("after"), headline.get("difference")
    if not before or before.get("value") is None:
        return Verdict("empty", f"Nothing was measured on {name}", "There were no reviews to answer.")
    if not after or not difference or difference.get("value") is None:
        return _single(name, before, confidence)
    kind = _kind(headline, confidence)
    return Verdict(kind, _title(kind, name, difference["value"]), _sentence(kind, headline, confidence))


def points(share: float | None, signed: bool = False) -> str:
    """A share as percentage points with one digit: 0.038 -> 3.8, with a sign +3.8; – where there is none."""
    if share is None:
        return "–"
    text = f"{100 * share:+.1f}" if signed else f"{100 * share:.1f}"
    text = text.replace("-", "−")
    return text.lstrip("+−") if float(text.replace("−", "-")) == 0 else text


def p_text(p_value: float | None) -> str:
    """`p = 0.012`, `p < 0.0001`, `p > 0.99`."""
    if p_value is None:
        return "p –"
    if p_value < 1e-4:
        return "p < 0.0001"
    return "p > 0.99" if p_value > 0.99 else f"p = {p_value:.2g}"


def _kind(headline: Mapping[str, Any], confidence: float) -> str:
    difference, p_value = headline["difference"], headline.get("p_value")
    if headline.get("won") == 0 and headline.get("lost") == 0:
        return "unchanged"
    if p_value is None or p_value >= 1 - confidence or difference["low"] <= 0 <= difference["high"]:
        return "noise"
    return "better" if difference["value"] > 0 else "worse"


def _title(kind: str, name: str, change: float) -> str:
    if kind == "unchanged":
        return f"No answer on {name} turned right or wrong"
    if kind == "noise":
        return f"No difference beyond noise on {name}"
    verb = "rose" if kind == "better" else "fell"
    return f"Accuracy on {name} {verb} by {points(abs(change))} points"


def _single(name: str, before: Mapping[str, Any], confidence: float) -> Verdict:
    return Verdict(
        "single",
        f"Accuracy on {name}: {points(before['value'])} %",
        f"Measured once, on {before['count']:,} reviews ({_interval(before, confidence, False)}). "
        "Nothing was trained, so there is nothing to compare.",
    )


def _sentence(kind: str, headline: Mapping[str, Any], confidence: float) -> str:
    before, after, difference = headline["before"], headline["after"], headline["difference"]
    count, won, lost = difference["count"], headline.get("won", 0), headline.get("lost", 0)
    if kind == "unchanged":
        return (
            f"Accuracy is {points(before['value'])} % before and after, and each of the {count:,} reviews got as many "
            "right answers as before. If the adapter was meant to change answers, check that it reached the generator."
        )
    start = (
        f"Accuracy went from {points(before['value'])} % to {points(after['value'])} %, "
        f"{points(difference['value'], True)} points ({_interval(difference, confidence, True)}; "
        f"{p_text(headline.get('p_value'))}; {count:,} reviews, of them {won:,} won and {lost:,} lost). "
    )
    return start + _judgement(kind) + _detectable(headline.get("detectable"))


def _judgement(kind: str) -> str:
    if kind == "noise":
        return "This is within noise: it shows neither a gain nor a loss."
    return f"This is more than noise: the model answers {kind} than before."


def _detectable(smallest: float | None) -> str:
    if smallest is None:
        return " So few answers changed that this data set could not have told any such difference from noise."
    return f" With this many changed answers, a difference under {points(smallest)} points would often go unseen."


def _interval(estimate: Mapping[str, Any], confidence: float, signed: bool) -> str:
    low, high = points(estimate["low"], signed), points(estimate["high"], signed)
    return f"{100 * confidence:g} % interval {low} to {high}"
