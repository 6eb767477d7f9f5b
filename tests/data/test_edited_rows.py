"""Originals in one file and their edits in another: pairs by row, as contrast sets are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from suite_files import examples, resolved, write

from afa_llm.config_data import Source
from afa_llm.config_loading import load_config
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.sources import load_examples
from afa_llm.data.suites import lacking, resolve_suites
from afa_llm.doctor.inputs import input_paths
from afa_llm.errors import AfaError
from afa_llm.records import Example

LABELS = {"negative": (0, "Negative"), "positive": (1, "Positive")}
ORIGINALS = [{"text": f"Film {k} is dull.", "label": 0} for k in range(5)]
EDITS = [{"text": f"Film {k} is lovely.", "label": 1} for k in range(5)]


def load(quarantine: Quarantine | None = None, **settings: Any) -> list[Example]:
    return load_examples(Source(**settings), LABELS, seed=0, quarantine=quarantine or Quarantine())


def two_files(folder: Path, originals: list[dict[str, Any]], edits: list[dict[str, Any]]) -> dict[str, str]:
    paths = {"path": write(folder / "a.jsonl", originals), "edits_path": write(folder / "b.jsonl", edits)}
    return {setting: str(path) for setting, path in paths.items()}


def test_rows_of_the_same_place_are_a_pair(tmp_path: Path) -> None:
    found = load(**two_files(tmp_path, ORIGINALS, EDITS))
    assert [(e.text, e.label, e.pair, e.side) for e in found[2:4]] == [
        ("Film 1 is dull.", 0, "row 2", "original"),
        ("Film 1 is lovely.", 1, "row 2", "edited"),
    ]
    assert len(found) == len({e.example_id for e in found}) == 10


def test_ids_of_their_own_may_be_the_same_in_both_files(tmp_path: Path) -> None:
    paths = two_files(
        tmp_path, *([{**row, "id": f"r{k}"} for k, row in enumerate(rows)] for rows in (ORIGINALS, EDITS))
    )
    assert [e.example_id for e in load(**paths, id_column="id")][:3] == ["r0", "r0/edited", "r1"]


@pytest.mark.parametrize("settings", [{"max_samples": 5}, {"part": (0.3, 0.9)}])
def test_pairs_are_taken_whole(tmp_path: Path, settings: dict[str, Any]) -> None:
    found = load(**two_files(tmp_path, ORIGINALS, EDITS), **settings)
    assert 0 < len(found) < 10
    assert sorted(e.pair for e in found if e.side == "original") == sorted(e.pair for e in found if e.side == "edited")


def test_a_bad_row_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    """It is told with its own file and line, and what follows is not joined to a neighbour."""
    paths, quarantine = two_files(tmp_path, ORIGINALS, EDITS), Quarantine()
    lines = Path(paths["edits_path"]).read_text().splitlines()
    Path(paths["edits_path"]).write_text("\n".join([lines[0], "{broken", *lines[2:]]) + "\n")
    found = load(quarantine, **paths)
    assert [(e.text[5], e.side) for e in found if e.pair in ("row 2", "row 3")] == [
        ("1", "original"),
        ("2", "original"),
        ("2", "edited"),
    ]
    (bad,) = quarantine.rows
    assert (bad.file, bad.line) == (paths["edits_path"], 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edits_path": "{folder}/c.jsonl"}, r"c\.jsonl: no such file; did you mean .*[ab]\.jsonl"),
        ({"edits_path": "{folder}/short.jsonl"}, r"short\.jsonl: 4 rows, and 5 in .*a\.jsonl; the n-th row"),
        ({"edits_path": "{folder}/other.jsonl"}, r"other\.jsonl: no column 'label' .*; there are text"),
        ({"path": "builtin:planted"}, r"edits_path goes with reviews of your own, not with builtin:planted"),
    ],
)
def test_what_cannot_be_joined_is_told(tmp_path: Path, change: dict[str, str], message: str) -> None:
    write(tmp_path / "short.jsonl", EDITS[:4])
    write(tmp_path / "other.jsonl", [{"text": row["text"]} for row in EDITS])
    change = {setting: path.format(folder=tmp_path) for setting, path in change.items()}
    with pytest.raises(AfaError, match=message):
        load(**{**two_files(tmp_path, ORIGINALS, EDITS), **change})


def test_contrast_sets_as_their_authors_release_them(tmp_path: Path) -> None:
    folder = tmp_path / "contrast_imdb"
    folder.mkdir()
    (folder / "test_original.tsv").write_text('Sentiment\tText\nNegative\t"""A ""bad"" film."""\nPositive\tFine.\n')
    (folder / "test_contrast.tsv").write_text('Sentiment\tText\nPositive\t"""A ""good"" film."""\nNegative\tPoor.\n')
    given = load_config(
        None, [f"data.suites_dir={tmp_path}", "data.evaluation=[{path: 'suite:contrast_imdb', split: test}]"]
    )
    config = resolve_suites(given)
    assert lacking(given, config) == []
    assert [(e.text, e.label, e.pair, e.side) for e in examples(config)] == [
        ('"A "bad" film."', 0, "row 1", "original"),
        ('"A "good" film."', 1, "row 1", "edited"),
        ("Fine.", 1, "row 2", "original"),
        ("Poor.", 0, "row 2", "edited"),
    ]
    assert config.data.evaluation[0].title == "contrast_imdb_test"
    assert input_paths(config, None)["data.evaluation.0.edits_path"] == str(folder / "test_contrast.tsv")
    assert examples(resolved(tmp_path, "contrast_imdb", "test_original"))[0].pair == ""  # as a plain set
    write(folder / "test.jsonl", ORIGINALS)
    with pytest.raises(AfaError, match=r"both .*test\.jsonl and .*test_original\.tsv are there; take one away"):
        resolve_suites(given)
    with pytest.raises(AfaError, match=r"or two files, <split>_original and <split>_contrast, whose rows are pairs"):
        resolved(tmp_path, "contrast_imdb", "dev")
