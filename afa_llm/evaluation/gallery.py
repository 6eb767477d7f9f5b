"""Reviews worth looking at, cut into words with a shade for their focus.

Legend: W words of one review.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from afa_llm.evaluation.focus_items import FocusItem, FocusPhase
from afa_llm.evaluation.plausibility import RATIONALE_THRESHOLD
from afa_llm.evaluation.visible_text import visible

SHADES = 10
TOP_WORDS = 3
LONGEST_WORD = 30
"""Where words are listed; in the review itself they stand whole."""

Names = tuple[str, str]
PHASES: Names = ("before", "after")
"""What the two phases of an item are called; a benchmark's are two arms."""


@dataclass(frozen=True)
class Piece:
    """A stretch of the review. `shade`: 0..SHADES, or -1 for what lies between words. `hint`: its numbers."""

    text: str
    shade: int = -1
    decisive: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Panel:
    """A review in one phase. `probability`: of the true label."""

    phase: str
    pieces: tuple[Piece, ...]
    prediction: str
    right: bool
    probability: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Card:
    """One review. `shift`: share of the focus that moved to other words, in [0, 1]."""

    example_id: str
    label: str
    panels: tuple[Panel, ...]
    shift: float | None


@dataclass(frozen=True)
class Shelf:
    """Some reviews of one kind. `found`: how many there are in all."""

    title: str
    meaning: str
    found: int
    cards: tuple[Card, ...]


def shelves(items: Sequence[FocusItem], labels: Sequence[str], most: int, names: Names = PHASES) -> list[Shelf]:
    """Won, lost and most shifted reviews; of a single phase the surest mistakes and the sharpest focus."""

    def shelf(title: str, meaning: str, kept: Sequence[FocusItem], key: Callable[[FocusItem], float]) -> Shelf:
        return Shelf(title, meaning, len(kept), tuple(_card(item, labels, names) for item in _first(kept, key, most)))

    paired = [item for item in items if item.after is not None]
    if not paired:
        wrong = [item for item in items if not _right(item, item.before)]
        focused = [item for item in items if item.words]
        return [
            shelf("Mistakes", "The surest first.", wrong, lambda i: -_probability(i, i.before)),
            shelf("Sharpest focus", "Most focus on one word.", focused, lambda i: max(i.before.focus)),
        ]
    won = [item for item in paired if not _right(item, item.before) and _right(item, item.after)]
    lost = [item for item in paired if _right(item, item.before) and not _right(item, item.after)]
    shown = [*_first(won, _gain, most), *_first(lost, lambda item: -_gain(item), most)]
    others = [item for item in paired if item.words and item not in shown]
    return [
        shelf("Won", "Wrong before, right after; the largest gains first.", won, _gain),
        shelf("Lost", "Right before, wrong after; the largest losses first.", lost, lambda i: -_gain(i)),
        shelf("Most shifted focus", "Not shown above; the largest shifts first.", others, shift),
    ]


def shift(item: FocusItem) -> float:
    """Total variation distance of the focus before and after: the share that moved."""
    if item.after is None:
        return 0.0
    return float(np.abs(np.array(item.after.focus) - np.array(item.before.focus)).sum() / 2)


def pieces(item: FocusItem, phase: FocusPhase, names: Names = PHASES) -> tuple[Piece, ...]:
    """The text in order, words shaded in proportion to the largest focus of either phase, so that columns compare.

    Spans that overlap or leave the text are cut to what has not been shown yet.
    """
    largest = max((*item.before.focus, *(item.after.focus if item.after else ())), default=0.0) or 1.0
    found, at = [], 0
    for word, (start, end) in enumerate(item.words):
        start, end = max(at, start), min(len(item.text), end)
        if start >= end:
            continue
        if start > at:
            found.append(Piece(visible(item.text[at:start])))
        shade = round(SHADES * phase.focus[word] / largest)
        found.append(Piece(visible(item.text[start:end]), shade, _decisive(item, word), _hint(item, word, names)))
        at = end
    return (*found, Piece(visible(item.text[at:]))) if at < len(item.text) else tuple(found)


def _first(items: Sequence[FocusItem], key: Callable[[FocusItem], float], most: int) -> list[FocusItem]:
    return sorted(items, key=key, reverse=True)[:most]


def _card(item: FocusItem, labels: Sequence[str], names: Names) -> Card:
    phases = [("before", item.before)] + ([("after", item.after)] if item.after else [])
    return Card(
        example_id=visible(item.example_id),
        label=_name(labels, item.label),
        panels=tuple(_panel(item, name, phase, labels, names) for name, phase in phases),
        shift=shift(item) if item.after else None,
    )


def _panel(item: FocusItem, name: str, phase: FocusPhase, labels: Sequence[str], names: Names) -> Panel:
    order = np.argsort(-np.array(phase.focus), kind="stable")[:TOP_WORDS]
    words = [visible(item.text[start:end]) for start, end in item.words]
    return Panel(
        phase=name,
        pieces=pieces(item, phase, names),
        prediction=_name(labels, phase.prediction),
        right=_right(item, phase),
        probability=_probability(item, phase),
        top=tuple((_cut(words[word]), phase.focus[word]) for word in order),
    )


def _cut(word: str) -> str:
    return word if len(word) <= LONGEST_WORD else word[: LONGEST_WORD - 1] + "…"


def _name(labels: Sequence[str], label: int) -> str:
    return labels[label] if 0 <= label < len(labels) else str(label)


def _right(item: FocusItem, phase: FocusPhase | None) -> bool:
    return phase is not None and phase.prediction == item.label


def _probability(item: FocusItem, phase: FocusPhase | None) -> float:
    if phase is None or not 0 <= item.label < len(phase.probabilities):
        return 0.0
    return phase.probabilities[item.label]


def _gain(item: FocusItem) -> float:
    return _probability(item, item.after) - _probability(item, item.before)


def _decisive(item: FocusItem, word: int) -> bool:
    return item.rationale is not None and item.rationale[word] >= RATIONALE_THRESHOLD


def _hint(item: FocusItem, word: int, names: Names) -> str:
    text = f"focus {100 * item.before.focus[word]:.1f} %"
    if item.after:
        text += f" {names[0]}, {100 * item.after.focus[word]:.1f} % {names[1]}"
    if item.rationale is not None:
        text += f"; rationale {item.rationale[word]:.2g}"
    return text
