"""Focus in a terminal: numbers without colour, nothing obeyed."""

import io

import pytest
from rich.console import Console

from afa_llm.evaluation.terminal import render_focus

WORDS = ["The", "film", "is", "superb", "!"]
FOCUS = [0.1, 0.2, 0.04, 0.6, 0.06]


def printed(colour: bool, *arguments) -> str:
    console = Console(
        file=io.StringIO(), width=100, force_terminal=colour, color_system="truecolor" if colour else None
    )
    console.print(render_focus(*arguments))
    return console.file.getvalue()


def test_without_colour_words_numbers_and_bars_are_there() -> None:
    lines = printed(False, WORDS, FOCUS, [0, 0, 0, 1, 0]).splitlines()
    assert lines[0] == "The film is superb !"
    assert lines[2].split() == ["60.0", "%", "█" * 24, "*", "superb"]
    assert lines[3].split() == ["20.0", "%", "█" * 8 + "·" * 16, "film"]
    assert "decisive" in lines[-1]


def test_the_most_focused_word_has_the_fullest_shade_and_decisive_ones_a_line() -> None:
    text = render_focus(WORDS, FOCUS, [0, 0, 0, 0.5, 0])
    style = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert "on #ffb000" in style["superb"]
    assert "underline" in style["superb"].replace("not underline", "")
    assert "on #ffe19d" in style["film"]  # a third of the way: 250 − 74/3, 235 − 235/3
    assert "underline" not in style["film"].replace("not underline", "")


def test_focus_need_not_be_normalised_and_the_rest_is_counted() -> None:
    lines = printed(False, ["w"] * 15, [3.0] * 15).splitlines()
    assert lines[2].split()[0] == "6.7"
    assert "5 more words" in lines[-1]


def test_hostile_words_are_shown_and_not_obeyed() -> None:
    out = printed(True, ["[red]x[/red]", "a\x1b[2Jb", "\u202eevil", "two\nlines", "w" * 500], [0.2] * 5)
    assert "[red]x[/red]" in out
    assert "\x1b[2J" not in out
    assert "\u202e" not in out
    assert "two lines" in out
    assert "w" * 39 + "…" in out


def test_no_words_and_wrong_lengths() -> None:
    assert render_focus([], []).plain == "(no words)"
    assert render_focus(["a"], [0.0]).plain.startswith("a")
    with pytest.raises(ValueError, match="5 words"):
        render_focus(WORDS, FOCUS[:-1])
    with pytest.raises(ValueError, match="rationale"):
        render_focus(WORDS, FOCUS, [1.0])
