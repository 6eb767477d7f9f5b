"""The right reviews on the right shelf, and shades in proportion."""

from pathlib import Path

import pytest

from afa_llm.errors import AfaError
from afa_llm.evaluation.focus_items import FocusItem, FocusPhase, read_focus_items
from afa_llm.evaluation.gallery import Piece, pieces, shelves, shift
from afa_llm.evaluation.json_files import write_lines
from afa_llm.evaluation.visible_text import visible

LABELS = ("negative", "positive")


def item(name: str, before: float, after: float | None, moved: float = 0.0, label: int = 1) -> FocusItem:
    """A review with p(positive) before and after; `moved` focus goes from its first word to its second."""
    phases = [
        None if p is None else FocusPhase(focus, (1 - p, p), int(p > 0.5))
        for p, focus in ((before, (0.9, 0.1)), (after, (0.9 - moved, 0.1 + moved)))
    ]
    return FocusItem("d", name, "so good!", ((0, 2), (3, 7)), label, (0.0, 1.0), phases[0], phases[1])


def test_shelves() -> None:
    items = [
        item("kept", 0.9, 0.9, 0.1),
        item("won", 0.4, 0.6),
        item("won more", 0.1, 0.9),
        item("lost", 0.8, 0.3),
        item("shifted", 0.9, 0.8, 0.7),
        item("still wrong", 0.1, 0.2, label=1),
        item("lost, negative", 0.2, 0.9, label=0),
    ]
    won, lost, shifted = shelves(items, LABELS, most=2)
    assert [card.example_id for card in won.cards] == ["won more", "won"]
    assert [card.example_id for card in lost.cards] == ["lost, negative", "lost"]
    assert [card.example_id for card in shifted.cards] == ["shifted", "kept"]
    assert (won.found, lost.found, shifted.found) == (2, 2, 3)
    panel = lost.cards[0].panels[1]
    assert (panel.prediction, panel.right, panel.probability) == ("positive", False, pytest.approx(0.1))
    assert won.cards[0].panels[0].top[0] == ("so", 0.9)


def test_a_review_stands_on_one_shelf_only() -> None:
    items = [item("small loss", 0.6, 0.4, 0.8), item("large loss", 0.9, 0.1, 0.5), item("kept", 0.9, 0.9, 0.1)]
    _, lost, shifted = shelves(items, LABELS, most=1)
    assert [card.example_id for card in lost.cards] == ["large loss"]
    assert [card.example_id for card in shifted.cards] == ["small loss"]
    assert shifted.found == 2


def test_single_phase_shows_the_surest_mistakes() -> None:
    mistakes, sharpest = shelves([item("a", 0.4, None), item("b", 0.1, None), item("c", 0.9, None)], LABELS, 5)
    assert [card.example_id for card in mistakes.cards] == ["b", "a"]
    assert len(sharpest.cards) == 3
    assert [shelf.found for shelf in shelves([], LABELS, 5)] == [0, 0]


def test_shift_is_the_share_that_moved() -> None:
    assert shift(item("x", 0.5, 0.5, moved=0.25)) == pytest.approx(0.25)


def test_pieces_carry_the_whole_text_and_shades_of_one_scale() -> None:
    one = item("x", 0.5, 0.5, moved=0.45)
    before, after = pieces(one, one.before), pieces(one, one.after)
    assert "".join(piece.text for piece in before) == "so good!"
    assert [piece.shade for piece in before] == [10, -1, 1, -1]
    assert [piece.shade for piece in after] == [5, -1, 6, -1]
    assert [piece.decisive for piece in before] == [False, False, True, False]
    assert before[2].hint == "focus 10.0 % before, 55.0 % after; rationale 1"


def test_spans_that_overlap_or_leave_the_text_do_not_double_it() -> None:
    phase = FocusPhase((0.5, 0.3, 0.2), (0.5, 0.5), 0)
    odd = FocusItem("d", "x", "abcdef", ((0, 4), (2, 5), (5, 99)), 0, None, phase, None)
    assert [piece.text for piece in pieces(odd, phase)] == ["abcd", "e", "f"]
    empty = FocusItem("d", "x", "abc", (), 0, None, FocusPhase((), (), 0), None)
    assert pieces(empty, empty.before) == (Piece("abc"),)


def test_listed_words_are_cut_and_those_in_the_review_are_not() -> None:
    phase = FocusPhase((1.0,), (0.5, 0.5), 0)
    long = FocusItem("d", "x", "w" * 300, ((0, 300),), 1, None, phase, None)
    panel = shelves([long], LABELS, 1)[0].cards[0].panels[0]
    assert panel.top == (("w" * 29 + "…", 1.0),)
    assert panel.pieces[0].text == "w" * 300


def test_visible() -> None:
    assert visible("a\x00b\x1bc\u202ed\ud800e\x85") == "a\ufffdb\ufffdc\ufffdd\ufffde\ufffd"
    family = "tab\tline\nfeed 👨‍👩‍👧 é ❤️ اُردُو"
    assert visible(family) == family


def test_focus_items_come_back_and_bad_ones_are_named(tmp_path: Path) -> None:
    file = tmp_path / "focus_d.jsonl"
    items = [item("a", 0.2, 0.9), item("b", 0.2, None)]
    write_lines(file, items)
    assert read_focus_items(file) == items
    good = '{"data_set":"d","example_id":"1","text":"a b","words":[[0,1],[2,3]],"label":0,"rationale":null,"before":%s}'
    for before, message in (
        ('{"focus":[1.0],"probabilities":[1],"prediction":0},"after":null', "one number per word"),
        ('{"focus":[NaN,1],"probabilities":[1],"prediction":0},"after":null', "numbers from 0 up"),
        ('{"focus":[null,1],"probabilities":[1],"prediction":0},"after":null', "not a focus item"),
        ("null", "not a focus item"),
    ):
        file.write_text(good % before)
        with pytest.raises(AfaError, match=f"record 1: .*{message}"):
            read_focus_items(file)
