"""Rows that a setting leaves out, and parts of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from row_files import LABELS, load, write

from afa_llm.config_data import Source
from afa_llm.data.duplicates import normalised
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.sources import load_examples
from afa_llm.errors import AfaError


def test_rows_may_be_left_out_on_purpose(tmp_path: Path) -> None:
    rows: list[Any] = [{"text": f"text {k}", "label": k % 2, "stars": k, "id": f"i{k}"} for k in range(6)]
    path = write(tmp_path / "r.jsonl", [*rows, {"text": "no stars", "label": 1, "stars": None, "id": "x"}])
    (tmp_path / "ids.txt").write_text("i1\ni5\n")
    quarantine = Quarantine()
    where = {"stars": (1, "2", 3.0)}
    found = load(path, quarantine, where=where, exclude_ids=str(tmp_path / "ids.txt"), id_column="id")
    assert [e.example_id for e in found] == ["i2", "i3"]
    assert quarantine.left_out == {"where.stars": 4, "exclude_ids": 1} and quarantine.rows_read == 2
    (tmp_path / "others.txt").write_text("1\n5\n")
    met = Quarantine()
    load(path, met, exclude_ids=str(tmp_path / "others.txt"), id_column="id")
    met.absorb(Quarantine())
    assert met.summary() == "0 × left out by exclude_ids"
    with pytest.raises(AfaError, match=r"where.star: no such column in .*; there are id, label, stars, text"):
        load(path, where={"star": (1,)})
    with pytest.raises(AfaError, match="where, exclude_ids and part leave no row"):
        load(path, where={"stars": (9,)})
    with pytest.raises(AfaError, match="exclude_ids without id_column"):
        load(path, exclude_ids=str(tmp_path / "ids.txt"))
    with pytest.raises(AfaError, match=r"nowhere.txt: cannot be read"):
        load(path, exclude_ids=str(tmp_path / "nowhere.txt"), id_column="id")


def test_parts_of_a_file_hold_no_review_twice(tmp_path: Path) -> None:
    """By the text, so that the same review under two ids, or in other spacing, falls into one part."""
    rows = [{"text": f"text number {k}", "label": k % 2} for k in range(400)]
    again = [{"text": f"Text number {k} .", "label": k % 2} for k in range(100)]
    path = write(tmp_path / "r.jsonl", [*rows, *again])
    quarantine = Quarantine()
    train, test = load(path, quarantine, part=(0, 0.8)), load(path, part=(0.8, 1))
    assert len(train) + len(test) == 500 and quarantine.left_out == {"part": len(test)}
    assert not {normalised(e.text) for e in train} & {normalised(e.text) for e in test}
    assert 0.7 < len(train) / 500 < 0.9  # binomial: a standard deviation of 0.02
    assert load(path, part=(0.8, 1)) == test
    assert [e.text for e in load(path, part=(0, 1))] == [row["text"] for row in [*rows, *again]]
    assert {e.text for e in load(path, part=(0.8, 0.9))} < {e.text for e in test}


@pytest.mark.parametrize(
    "bad", ['{"text": "no end', '{"label": 1}', '{"text": null, "label": 1}', '{"text": " ", "label": 1}']
)
def test_rows_that_cannot_be_used_are_spread_over_the_parts(tmp_path: Path, bad: str) -> None:
    """In every part, or all in one, a few bad rows of a file would be most of a small part."""
    rows = [f'{{"text": "text number {k}", "label": {k % 2}}}' if k % 4 else bad for k in range(800)]
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    counted = []
    for part in ((0, 0.8), (0.8, 0.9), (0.9, 1)):
        quarantine = Quarantine()
        load(str(path), quarantine, part=part)
        counted.append(len(quarantine.rows))
    assert sum(counted) == 200
    assert 5 < counted[1] < 40 and 5 < counted[2] < 40  # binomial: 20 with a standard deviation of 4.2


def test_parts_keep_pairs_whole(tmp_path: Path) -> None:
    rows = [{"text": f"text {k} {side}", "label": 1, "p": k} for k in range(60) for side in "abc"]
    path = write(tmp_path / "r.jsonl", rows)
    first, second = (load(path, pair_column="p", part=part) for part in ((0, 0.5), (0.5, 1)))
    assert first and second and not {e.pair for e in first} & {e.pair for e in second}
    assert {sum(e.pair == pair for e in first) for pair in {e.pair for e in first}} == {3}


@pytest.mark.parametrize("missing", [None, float("nan"), ""])
def test_parts_cut_reviews_without_a_pair_by_their_text(tmp_path: Path, missing: object) -> None:
    path = write(tmp_path / "r.jsonl", [{"text": f"text {k}", "label": 1, "p": missing} for k in range(60)])
    first, second = (load(path, pair_column="p", part=part) for part in ((0, 0.5), (0.5, 1)))
    assert len(first) + len(second) == 60 and min(len(first), len(second)) > 15


@pytest.mark.parametrize("part", [(0.5, 0.5), (0.9, 0.1), (-0.1, 1), (0, 1.1)])
def test_no_part(part: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="two rising numbers between 0 and 1"):
        Source(part=part)


@pytest.mark.parametrize("setting", [{"part": (0, 0.5)}, {"where": {"label": (1,)}}, {"exclude_ids": "ids.txt"}])
def test_builtin_data_take_no_filter(setting: dict[str, Any]) -> None:
    with pytest.raises(AfaError, match=f"builtin:planted: {next(iter(setting))} is for files and hub data"):
        load_examples(Source(**setting), LABELS, seed=0, quarantine=Quarantine())
