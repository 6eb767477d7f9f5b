"""What a suite finds in a file: columns under their several names, pairs, rationales, ids that are left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from suite_files import RATED, ROWS, examples, resolved, write

from afa_llm.config_loading import load_config
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.suites import lacking, resolve_suites
from afa_llm.errors import AfaError


def test_other_formats_and_columns_that_a_file_lacks(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "cr").mkdir()
    (tmp_path / "cr" / "test.csv").write_text("text,label\nfine,1\nbad,0\n")
    assert len(examples(resolved(tmp_path, "cr", "test"))) == 2
    (tmp_path / "amazon").mkdir()  # as the hub has it: the text is called content
    rows = [{"content": row["text"], "label": row["label"]} for row in ROWS]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "amazon" / "test.parquet"))
    assert [e.text for e in examples(resolved(tmp_path, "amazon", "test"))] == ["It is lovely .", "It is dull ."]
    write(tmp_path / "sst2" / "dev.jsonl", ROWS)
    config = resolved(tmp_path, "sst2")
    assert config.data.evaluation[0].words_column is None
    assert [e.rationale for e in examples(config)] == [None, None]
    (tmp_path / "cr" / "train.jsonl").mkdir()  # a folder is no file
    with pytest.raises(AfaError, match=r"cr/train.jsonl is no file that can be read"):
        resolved(tmp_path, "cr", "train")


def test_a_rationale_without_its_words_is_left_alone(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "tokens"} for row in RATED]
    write(tmp_path / "sst2" / "dev.jsonl", rows)
    config = resolved(tmp_path, "sst2")
    assert config.data.evaluation[0].rationale_column is None
    assert [e.rationale for e in examples(config)] == [None, None]


def test_pairs_and_rows_without_a_label(tmp_path: Path) -> None:
    rows = [
        {"id": "a0", "original_id": "a", "is_original": True, "text": "The food was cold.", "label": 0},
        {"id": "a1", "original_id": "a", "is_original": False, "text": "The food was hot.", "label": 1},
        {"id": "b0", "original_id": "b", "is_original": True, "text": "It was okay.", "label": None},
    ]
    write(tmp_path / "cebab" / "dev.jsonl.gz", rows)
    quarantine = Quarantine()
    found = examples(resolved(tmp_path, "cebab"), quarantine)
    assert [(e.example_id, e.pair, e.side) for e in found] == [("a0", "a", "original"), ("a1", "a", "edited")]
    assert quarantine.left_out == {"where.label": 1} and not quarantine.rows


@pytest.mark.parametrize(("suite", "pair"), [("counterfactual_imdb", "batch_id"), ("contrast_imdb", "original_id")])
def test_counterfactual_reviews_as_their_authors_release_them(tmp_path: Path, suite: str, pair: str) -> None:
    (tmp_path / suite).mkdir()
    (tmp_path / suite / "test.tsv").write_text(
        f'Sentiment\tText\t{pair}\nNegative\t"Long, dull; ""bad"".<br />No."\t4\nPositive\tShort, lovely.\t4\n'
    )
    found = examples(resolved(tmp_path, suite, "test"))
    assert [(e.text, e.label, e.pair) for e in found] == [
        ('Long, dull; "bad".<br />No.', 0, "4"),
        ("Short, lovely.", 1, "4"),
    ]


def test_pairs_and_rationales_that_a_file_lacks_are_told(tmp_path: Path) -> None:
    paired = write(tmp_path / "counterfactual_imdb" / "test.jsonl", [{**row, "set": 3} for row in ROWS])
    write(tmp_path / "sst2" / "test.jsonl", ROWS)
    write(tmp_path / "cr" / "test.jsonl", ROWS)

    def told(*sources: str) -> list[str]:
        given = load_config(None, [f"data.suites_dir={tmp_path}", f"data.evaluation=[{', '.join(sources)}]"])
        return lacking(given, resolve_suites(given))

    pairs, rationales = told(
        *(f"{{path: 'suite:{name}', split: test}}" for name in ("counterfactual_imdb", "sst2", "cr"))
    )
    assert pairs.startswith(
        f"counterfactual_imdb_test: no pairs are measured, {paired} has no column pair_id or pair or batch_id or "
    )
    assert rationales.startswith("sst2_test: no rationales are measured")
    assert told("{path: 'suite:counterfactual_imdb', split: test, pair_column: set}", "{path: 'suite:checklist'}") == []


def test_columns_that_begin_far_down_in_a_file(tmp_path: Path) -> None:
    alone = [{"text": f"Film {k} is fine.", "label": 1} for k in range(300)]
    pair = [{"text": f"It is {word}.", "label": k, "pair_id": 7} for k, word in enumerate(("dull", "lovely"))]
    write(tmp_path / "counterfactual_imdb" / "test.jsonl", alone + pair)
    found = examples(resolved(tmp_path, "counterfactual_imdb", "test"))
    assert [e.pair for e in found] == [""] * 300 + ["7", "7"]


def test_rows_are_not_called_unseen_where_nothing_says_so(tmp_path: Path) -> None:
    rows = [{**row, "sst2_split": split} for row, split in zip(ROWS, ("train", "dev"), strict=True)]
    write(tmp_path / "fair_rationales" / "test.jsonl", rows)
    assert [e.text for e in examples(resolved(tmp_path, "fair_rationales_unseen", "test"))] == ["It is dull ."]
    write(tmp_path / "fair_rationales" / "test.jsonl", ROWS)
    with pytest.raises(AfaError, match=r"where\.sst2_split: no such column in .*test\.jsonl; there are label, text"):
        examples(resolved(tmp_path, "fair_rationales_unseen", "test"))
    assert len(examples(resolved(tmp_path, "fair_rationales_unseen", "test", where={"label": [0, 1]}))) == 2


def test_excluded_ids_beside_a_file_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "imdb" / "train.jsonl", [{**row, "id": f"r{k}"} for k, row in enumerate(ROWS)])
    (tmp_path / "imdb" / "train_exclude_ids.txt").write_text("r0\n\nr77\n")
    quarantine = Quarantine()
    assert [e.example_id for e in examples(resolved(tmp_path, "imdb", "train"), quarantine)] == ["r1"]
    assert quarantine.left_out == {"exclude_ids": 1}


def test_excluded_ids_are_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "cr" / "train.jsonl", [{**row, "id": f"r{k}"} for k, row in enumerate(ROWS)])
    (tmp_path / "cr" / "train_exclude_ids.txt").write_text("r0\n")
    assert [e.example_id for e in examples(resolved(tmp_path, "cr", "train"))] == ["r1"]
    write(tmp_path / "cr" / "train.jsonl", ROWS)
    with pytest.raises(AfaError, match="exclude_ids without id_column"):
        examples(resolved(tmp_path, "cr", "train"))
