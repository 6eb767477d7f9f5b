"""Word focus in a terminal, for `afa inspect`: shades where there is colour, numbers and bars everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from afa_llm.evaluation.plausibility import RATIONALE_THRESHOLD
from afa_llm.evaluation.visible_text import visible

BAR = 24
LISTED = 10
_PAPER, _AMBER = (255, 250, 235), (255, 176, 0)


def render_focus(words: Sequence[str], focus: Sequence[float], rationale: Sequence[float] | None = None) -> Text:
    """The words in order, shaded in proportion to the largest focus, then the most focused ones with share and bar.

    Decisive words (rationale of at least one half) are underlined, and starred in the list. Black on amber, whatever
    the terminal's own colours; control characters are made visible. Raises ValueError for lengths that disagree.
    """
    if len(focus) != len(words) or (rationale is not None and len(rationale) != len(words)):
        raise ValueError(f"{len(words)} words need as many numbers of focus ({len(focus)}) and rationale")
    if not words:
        return Text("(no words)")
    decisive = [rationale is not None and rationale[place] >= RATIONALE_THRESHOLD for place in range(len(words))]
    shown = [visible(word).replace("\n", " ").replace("\t", " ") for word in words]
    text = _shaded(shown, focus, decisive)
    text.append("\n\n")
    text.append_text(_list(shown, focus, decisive))
    return text


def _shaded(words: Sequence[str], focus: Sequence[float], decisive: Sequence[bool]) -> Text:
    largest = max(focus) or 1.0
    text = Text()
    for place, word in enumerate(words):
        style = _shade(focus[place] / largest) + Style(underline=decisive[place])
        text.append(word, style).append(" " if place < len(words) - 1 else "")
    return text


def _shade(level: float) -> Style:
    """From near white at 0 to amber at 1; a word below a twentieth of the largest keeps the terminal's own colours."""
    if level < 0.05:
        return Style()
    red, green, blue = (round(paper + (amber - paper) * level) for paper, amber in zip(_PAPER, _AMBER, strict=True))
    return Style(color="#000000", bgcolor=f"#{red:02x}{green:02x}{blue:02x}")


def _list(words: Sequence[str], focus: Sequence[float], decisive: Sequence[bool]) -> Text:
    order = sorted(range(len(words)), key=lambda place: -focus[place])[:LISTED]
    total, largest = sum(focus) or 1.0, max(focus) or 1.0
    text = Text()
    for place in order:
        filled = round(BAR * focus[place] / largest)
        star = "*" if decisive[place] else " "
        text.append(f"{100 * focus[place] / total:5.1f} % {'█' * filled}{'·' * (BAR - filled)} {star} ")
        text.append(_cut(words[place], 40)).append("\n")
    text.append(_legend(len(words) - len(order), any(decisive)), Style(dim=True))
    return text


def _legend(more: int, starred: bool) -> str:
    parts = ["share of the focus; bars and shades relative to the largest"]
    if starred:
        parts.append("underlined and *: decisive to annotators")
    if more:
        parts.append(f"{more} more words not listed")
    return "\n".join(parts)


def _cut(word: str, width: int) -> str:
    if cell_len(word) <= width:
        return word
    while cell_len(word) > width - 1:
        word = word[: max(1, min(len(word) - 1, width - 1))]
    return word + "…"
