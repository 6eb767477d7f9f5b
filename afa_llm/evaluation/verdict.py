"""Says in one plain sentence whether before and after differ by more than noise.

The rule, fixed here: a difference counts where p < 1 − confidence and the interval leaves out 0. All else is noise.
Beside it stands whether reviews are ranked otherwise (AUROC; its interval leaves out 0), which no threshold touches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEVELS = (0.05, 0.01, 0.001)
"""Levels of significance that a reader compares p with."""


@dataclass(frozen=True)
class Verdict:
    """`kind`: better, worse, noise, unchanged, single (one phase only) or empty.

    `title` is short, `sentence` complete, `brief` for a list of many.
    """

    kind: str
    title: str
    sentence: str
    brief: str


def verdict(headline: Mapping[str, Any], confidence: float) -> Verdict:
    """The verdict on one entry of results.json's `headline`."""
    name = headline.get("data_set") or "the data set"
    before, after, difference = headline.get("before"), headline.get("after"), headline.get("difference")
    if not before or before.get("value") is None:
        return nothing(f"Nothing was measured on {name}", "There were no reviews to answer.")
    if not after or not difference or difference.get("value") is None:
        return _single(name, before, confidence)
    kind = _kind(headline, confidence)
    title, figures = _title(kind, name, difference["value"]), _figures(headline, confidence)
    ranked = _ranked(kind, headline.get("ranking"), confidence)
    if kind == "unchanged":
        return Verdict(kind, title, _unchanged(headline) + ranked, _unchanged(headline) + ranked)
    detectable = _detectable(kind, headline.get("detectable"))
    sentence = f"Accuracy went from {figures}. {_judgement(kind)}{detectable}{ranked}"
    return Verdict(kind, title, sentence, f"From {figures}.{detectable if kind == 'noise' else ''}{ranked}")


def nothing(title: str, sentence: str) -> Verdict:
    """The verdict where there is nothing to judge."""
    return Verdict("empty", title, sentence, sentence)


def points(share: float | None, signed: bool = False) -> str:
    """A share as percentage points with one digit: 0.038 -> 3.8, with a sign +3.8; – where there is none."""
    return fixed(None if share is None else 100 * share, signed, 1)


def fixed(value: float | None, signed: bool = False, digits: int = 3) -> str:
    """A number with so many digits behind the point: 0.0381 -> 0.038, with a sign +0.038; – where there is none."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def p_number(p_value: float) -> str:
    """Two significant digits: 0.0123 -> 0.012; more where p would be rounded up to a level it is below: 0.0496."""
    for digits in range(2, 8):
        text = f"{p_value:.{digits}g}"
        if all((float(text) < level) == (p_value < level) for level in LEVELS):
            return text
    return f"{p_value:.2g}"


def p_text(p_value: float | None) -> str:
    """`p = 0.012`, `p < 0.0001`, `p > 0.99`."""
    if p_value is None:
        return "p –"
    if p_value < 1e-4:
        return "p < 0.0001"
    return "p > 0.99" if p_value > 0.99 else f"p = {p_number(p_value)}"


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
    measured = f"Measured once, on {before['count']:,} reviews ({_interval(before, confidence, False)})."
    title = f"Accuracy on {name}: {points(before['value'])} %"
    return Verdict("single", title, f"{measured} Nothing was trained, so there is nothing to compare.", measured)


def _unchanged(headline: Mapping[str, Any]) -> str:
    return (
        f"Accuracy is {points(headline['before']['value'])} % before and after, and each of the "
        f"{headline['difference']['count']:,} reviews got as many right answers as before. If the adapter was meant to "
        "change answers, check that it reached the generator."
    )


def _figures(headline: Mapping[str, Any], confidence: float) -> str:
    before, after, difference = headline["before"], headline["after"], headline["difference"]
    return (
        f"{points(before['value'])} % to {points(after['value'])} %, {points(difference['value'], True)} points "
        f"({_interval(difference, confidence, True)}; {p_text(headline.get('p_value'))}; "
        f"{difference['count']:,} reviews, of them {headline.get('won') or 0:,} won "
        f"and {headline.get('lost') or 0:,} lost)"
    )


def _judgement(kind: str) -> str:
    if kind == "noise":
        return "This is within noise: it shows neither a gain nor a loss."
    return f"This is more than noise: the model answers {kind} than before."


def _ranked(kind: str, ranking: Mapping[str, Any] | None, confidence: float) -> str:
    """What AUROC says to the verdict on accuracy."""
    if not ranking or ranking["difference"].get("low") is None:
        return ""
    difference = ranking["difference"]
    low, high = (fixed(difference[end], True) for end in ("low", "high"))
    figures = (
        f"AUROC {fixed(ranking['before']['value'])} to {fixed(ranking['after']['value'])}, "
        f"{fixed(difference['value'], True)}, {100 * confidence:g} % interval {low} to {high}"
    )
    shown = "" if difference["low"] <= 0 <= difference["high"] else "better" if difference["value"] > 0 else "worse"
    if kind in ("better", "worse"):
        if shown == kind:
            return f" It also ranks the reviews {kind}, whatever the threshold ({figures})."
        opposite = f" but {shown}" if shown else ""
        return (
            f" But it does not rank the reviews {kind}{opposite} ({figures}): the change may be no more than where the "
            "line between the labels falls."
        )
    if shown:
        return f" Yet it ranks the reviews {shown} than before, whatever the threshold ({figures})."
    return f" Neither are the reviews ranked otherwise beyond noise ({figures})."


def _detectable(kind: str, smallest: float | None) -> str:
    if smallest is not None:
        return f" With this many changed answers, a difference under {points(smallest)} points would often go unseen."
    if kind == "noise":
        return " So few answers changed that hardly any difference could have been told from noise."
    return ""


def _interval(estimate: Mapping[str, Any], confidence: float, signed: bool) -> str:
    low, high = points(estimate["low"], signed), points(estimate["high"], signed)
    return f"{100 * confidence:g} % interval {low} to {high}"
