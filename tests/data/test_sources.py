"""Which rows become reviews, which are set aside and why, and which are drawn."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from row_files import load, write

from afa_llm.config_data import Source
from afa_llm.data.quarantine import Quarantine
from afa_llm.errors import AfaError


def test_a_good_row_in_every_format(tmp_path: Path) -> None:
    import datasets

    rows = [{"text": " Fine film. \n", "label": 1}, {"text": "Bad.", "label": 0}]
    write(tmp_path / "r.jsonl", rows)
    (tmp_path / "r.json").write_text(json.dumps(rows))
    (tmp_path / "r.csv").write_text('text,label\n" Fine film. \n",1\nBad.,0\n')
    (tmp_path / "r.tsv").write_text("text\tlabel\n Fine film. \tpos\nBad.\t 0.0 \n")
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "r.parquet"))
    for name in ("r.jsonl", "r.json", "r.csv", "r.tsv", "r.parquet"):
        quarantine = Quarantine()
        examples = load(str(tmp_path / name), quarantine)
        assert [(e.text, e.label) for e in examples] == [("Fine film.", 1), ("Bad.", 0)], name
        assert examples[0].words == ((0, 4), (5, 9), (9, 10))
        assert examples[0].example_id in ("r/1", "r/2")
        assert len({e.example_id for e in examples}) == 2
        assert (quarantine.rows_read, quarantine.rows) == (2, [])


def test_every_kind_of_bad_row_is_kept_with_its_reason(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"text": "good", "label": 1},
        {"text": None, "label": 1},
        {"text": float("nan"), "label": 1},
        {"text": "", "label": 1},
        {"text": " \n\t\u3000", "label": 1},
        {"text": "\u200b\u0000", "label": 1},
        {"text": 42, "label": 1},
        {"text": ["a"], "label": 1},
        {"label": 1},
        {"text": "no label"},
        {"text": "odd label", "label": "meh"},
        {"text": "null label", "label": None},
        {"text": "half \ud83d", "label": 1},
        ["a", "list"],
        {"text": "also good", "label": "1.0", "extra": {"deep": [1]}},
    ]
    quarantine = Quarantine()
    path = write(tmp_path / "r.jsonl", rows)
    assert [e.example_id for e in load(path, quarantine)] == ["r/1", "r/15"]
    reasons = {row.line: row.reason for row in quarantine.rows}
    assert sorted(reasons) == list(range(2, 15))
    assert (reasons[2], reasons[3]) == ("text is missing (None)", "text is missing (nan)")
    assert (reasons[4], reasons[5], reasons[6]) == ("text is empty", "text is empty", "text has no visible character")
    assert (reasons[7], reasons[8]) == ("text has type int, not string", "text has type list, not string")
    assert (reasons[9], reasons[10]) == ("no field 'text'", "no field 'label'")
    assert reasons[11].startswith("unknown label 'meh'; data.labels knows negative: [0, 'neg'], positive: [1, 'pos']")
    assert reasons[13] == "half of a surrogate pair (U+D83D) at character 6"
    assert {row.file for row in quarantine.rows} == {path}
    assert json.loads(quarantine.rows[9].raw) == rows[10]
    assert quarantine.rows_read == 15


@pytest.mark.parametrize(("setting", "field"), [("id_column", "i"), ("group_column", "g"), ("pair_column", "p")])
def test_names_that_can_be_written_nowhere_are_set_aside(tmp_path: Path, setting: str, field: str) -> None:
    rows = [{"text": "fine", "label": 1, field: name} for name in ("a", "b \ud800", "c")]
    quarantine = Quarantine()
    examples = load(write(tmp_path / "r.jsonl", rows), quarantine, **{setting: field})
    assert [e.text for e in examples] == ["fine", "fine"]
    (row,) = quarantine.rows
    assert (row.line, row.reason[-44:]) == (2, "has half of a surrogate pair (U+D800) at character 3"[-44:])


def test_what_is_missing_is_no_name(tmp_path: Path) -> None:
    rows = [{"text": "fine", "label": 1, "p": p} for p in (1, 1, None, float("nan"), float("nan"), " ")]
    path = write(tmp_path / "r.jsonl", rows)
    examples = load(path, pair_column="p", group_column="p", side_column="p")
    assert [e.pair for e in examples] == [e.side for e in examples] == ["1", "1", "", "", "", ""]
    assert {e.group for e in examples} == {"1", ""}


@pytest.mark.parametrize(("first", "second"), [("True", "False"), ("true", "false"), ("original", "edited")])
def test_sides_of_a_csv(tmp_path: Path, first: str, second: str) -> None:
    (tmp_path / "r.csv").write_text(f"text,label,is_original\nfine,1,{first}\nbad,0,{second}\n")
    assert [e.side for e in load(str(tmp_path / "r.csv"), side_column="is_original")] == ["original", "edited"]


def test_unusual_texts_survive_as_they_are(tmp_path: Path) -> None:
    texts = [
        "👍",
        "很好看",
        "cafe\u0301",
        "{review} {0} {{x}}",
        "a\r\nb",
        "x" * 100_000,
        "a\0b",
        '{"text": "nested"}',
        "ok",
    ]
    examples = load(write(tmp_path / "r.jsonl", [{"text": text, "label": 0} for text in texts]))
    assert [e.text for e in examples] == texts


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gone.jsonl", {}, r"gone\.jsonl: no such file; did you mean .*good\.jsonl"),
        ("", {}, r"a folder, not a file; name one of its files: good\.jsonl"),
        (f"{'a' * 300}.jsonl", {}, r"aaa\.jsonl: no such file"),
        ("notes.txt", {}, "unknown file type; data files end in .jsonl"),
        (
            "good.jsonl",
            {"text_column": "Texts"},
            "no column 'Texts' .*text_column.; there are text, label; did you mean 'text'",
        ),
        ("good.jsonl", {"label_column": "stars"}, "no column 'stars' .*label_column.; there are text, label$"),
        ("good.jsonl", {"id_column": "id"}, "no column 'id'"),
        (
            "twice.csv",
            {},
            r"no column 'label' .* several of that name: rename one, or set label_column='label \(column 2\)'",
        ),
        ("good.jsonl", {"rationale_column": "label"}, "rationale_column = label without words_column"),
        (
            "good.jsonl",
            {"words_column": "text", "rationale_span_column": "label"},
            "rationale_span_column = label beside words_column = text.*leave words_column out",
        ),
        ("good.jsonl", {"rationale_neutral": 2}, "rationale_neutral = 2.0 without rationale_column"),
        ("bad.jsonl", {}, "not one usable row:\n2 × unknown label"),
    ],
)
def test_what_a_user_can_mend(tmp_path: Path, name: str, settings: dict[str, str], message: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "good.jsonl", [{"text": "good", "label": 1}])
    (folder / "notes.txt").write_text("hello")
    if name == "bad.jsonl":
        write(folder / name, [{"text": "a", "label": 7}, {"text": "b", "label": 7}])
    if name == "twice.csv":
        (folder / name).write_text("text,label,label\na,1,0\n")
    with pytest.raises(AfaError, match=message):
        load(str(folder / name), **settings)


def test_the_home_of_nobody(tmp_path: Path) -> None:
    with pytest.raises(AfaError, match=r"~nobody-here/r\.jsonl: no such file"):
        load("~nobody-here/r.jsonl")
    path = write(tmp_path / "good.jsonl", [{"text": "good", "label": 1, "id": "a"}])
    with pytest.raises(AfaError, match="exclude_ids = ~nobody-here/ids: cannot be read"):
        load(path, exclude_ids="~nobody-here/ids", id_column="id")


def test_ids_groups_and_repeated_ids(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": 1, "key": "x1", "src": "web"},
        {"text": "b", "label": 1, "key": 7, "src": None},
        {"text": "c", "label": 1, "key": "x1", "src": "web"},
        {"text": "d", "label": 1, "key": None, "src": 3},
        {"text": "e", "label": 1, "key": "  "},
        {"text": "f", "label": 1, "key": True},
    ]
    quarantine = Quarantine()
    examples = load(write(tmp_path / "r.jsonl", rows), quarantine, id_column="key", group_column="src")
    assert [(e.example_id, e.group) for e in examples] == [("x1", "web"), ("7", "")]
    assert [row.line for row in quarantine.rows] == [3, 4, 5, 6]
    assert quarantine.rows[0].reason == "id 'x1' stands in line 1 too"


def test_draws_are_seeded_nested_even_and_in_order(tmp_path: Path) -> None:
    rows = [{"text": f"review {k}", "label": k % 2 if k % 10 else "bad"} for k in range(1000)]
    path = write(tmp_path / "r.jsonl", rows)
    lines = [int(e.text.split()[1]) for e in load(path, max_samples=300)]
    assert len(lines) == 300
    assert lines == sorted(lines)
    assert [e.text for e in load(path, max_samples=300)] == [f"review {line}" for line in lines]
    assert {e.text for e in load(path, max_samples=50)} <= {f"review {line}" for line in lines}
    assert [e.text for e in load(path, max_samples=300, seed=1)] != [f"review {line}" for line in lines]
    # Expected 150 of the draw in the first half; three standard deviations of a draw without replacement are 22.
    assert abs(sum(line < 500 for line in lines) - 150) < 22
    assert len(load(path, max_samples=5000)) == 900


def test_bad_rows_that_were_not_drawn_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"text": "fine", "label": 1}\n' * 90 + "broken\n" * 10)
    quarantine = Quarantine()
    assert len(load(str(path), quarantine, max_samples=20)) == 20
    assert quarantine.rows_read == 20 + len(quarantine.rows)


@pytest.mark.parametrize(("pairs", "noted"), [((1, 2, 3), 1), ((None, None, None), 1), ((1, 1, 2), 0)])
def test_a_column_that_joins_no_reviews_is_noted(tmp_path: Path, pairs: tuple[int | None, ...], noted: int) -> None:
    """Their consistency was left out of all results without a word."""
    rows = [{"text": f"text {k}", "label": k % 2, "p": pair} for k, pair in enumerate(pairs)]
    quarantine = Quarantine()
    assert len(load(write(tmp_path / "r.jsonl", rows), quarantine, pair_column="p")) == 3
    assert quarantine.summary().count("p: no two reviews share a pair; no pairs are measured") == noted


def test_pairs_are_drawn_together(tmp_path: Path) -> None:
    rows = [{"text": f"text {k}", "label": k % 2, "pair": k // 3, "side": k % 3 == 0} for k in range(30)]
    path = write(tmp_path / "r.jsonl", rows)
    found = load(path, pair_column="pair", side_column="side", max_samples=13)
    assert len(found) == 12
    assert {sum(e.pair == pair for e in found) for pair in {e.pair for e in found}} == {3}
    assert [e.side for e in found[:3]] == ["original", "edited", "edited"]
    assert found == load(path, pair_column="pair", side_column="side", max_samples=14)
    assert len(load(path, pair_column="pair", max_samples=30)) == 30
    with pytest.raises(AfaError, match="max_samples = 2: the first pair drawn has more reviews"):
        load(path, pair_column="pair", max_samples=2)


def test_semicolons_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("text;label\nfine;1\n")
    with pytest.raises(AfaError, match="separated by semicolons"):
        load(str(tmp_path / "r.csv"))


def test_too_many_unwanted_rows_are_told_how_they_are_left_out(tmp_path: Path) -> None:
    """Reviews that are neither good nor bad, such as those of three stars, are no bad rows."""
    path = write(tmp_path / "r.jsonl", [{"text": f"a film {k}", "label": k % 3} for k in range(60)])
    found, left = Quarantine(), Quarantine()
    load(path, found)
    with pytest.raises(AfaError, match=r"20 × unknown label 2.*\n.*`where` of the data source leaves out what"):
        found.check(None)
    load(path, left, where={"label": (0, 1)})
    left.check(None)


@pytest.mark.parametrize("setting", ["subset", "revision"])
def test_what_chooses_among_the_hubs_data_is_refused_of_a_file(tmp_path: Path, setting: str) -> None:
    path = write(tmp_path / "r.jsonl", [{"text": "Fine film.", "label": 1}])
    with pytest.raises(
        AfaError, match=f"data source r: {setting} = sst2 goes with a data set of the hub, and .*r.jsonl"
    ):
        load(path, Quarantine(), **{setting: "sst2"})


def test_a_file_is_told_by_its_name_and_a_hub_data_set_with_its_split() -> None:
    paths = ["x/dev.jsonl", "dev.CSV.gz", "stanfordnlp/sst2", "builtin:planted"]
    assert [Source(path=path).title for path in paths] == ["dev", "dev", "sst2_train", "planted_train"]
    assert Source(path="dev.csv", split="test").title == "dev_test"


def test_whole_numbers_of_a_table_with_gaps_are_ids(tmp_path: Path) -> None:
    """pandas makes 1 a 1.0 where a row has none, and data bases write decimals: every row was refused."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "ids.txt").write_text("2\n")
    texts, labels = ["a", "b", "c"], [0, 1, 0]
    for ids in (pa.array([1.0, 2.0, None]), pa.array([Decimal(1), Decimal(2), None])):
        pq.write_table(pa.table({"id": ids, "text": texts, "label": labels}), tmp_path / "r.parquet")
        quarantine = Quarantine()
        path = str(tmp_path / "r.parquet")
        assert [e.example_id for e in load(path, quarantine, id_column="id")] == ["1", "2"]
        assert quarantine.rows[0].reason == "id is None, not a string or whole number"
        kept = load(path, Quarantine(), id_column="id", exclude_ids=str(tmp_path / "ids.txt"))
        assert [e.example_id for e in kept] == ["1"]
    odd = write(tmp_path / "r.jsonl", [{"id": n, "text": "a", "label": 0} for n in (1.5, float("inf"), True, [1], 7.0)])
    assert [e.example_id for e in load(odd, id_column="id")] == ["7"]


def test_an_address_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(AfaError, match=r"^https://example.org/r.csv: an address, .*download it and name the file"):
        load("https://example.org/r.csv")
