"""Suites by name: from local files in every layout, from nowhere (told how to get them), with labels and prompts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from afa_llm.config import Config
from afa_llm.config_data import Source
from afa_llm.config_loading import dump_config, load_config
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.sources import load_examples
from afa_llm.data.suite_listing import listing
from afa_llm.data.suites import find_suite, hub_command, lacking, resolve_suites, suites
from afa_llm.data.templates import load_templates
from afa_llm.errors import AfaError
from afa_llm.records import Example

ROWS = [{"text": "It is lovely .", "label": 1}, {"text": "It is dull .", "label": 0}]
RATED = [
    {"text": "It is lovely .", "label": 1, "tokens": ["It", "is", "lovely", "."], "token_labels": [2, 2, 4, 2]},
    {"text": "It is dull .", "label": 0, "tokens": ["It", "is", "dull", "."], "token_labels": [2, 2, 1, 2]},
]


@pytest.fixture(autouse=True)
def _no_folder_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AFA_DATA", raising=False)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def resolved(folder: Path | None, suite: str, split: str = "dev", **settings: Any) -> Config:
    source = {"path": f"suite:{suite}", "split": split, **settings}
    return resolve_suites(load_config(None, [f"data.suites_dir={folder or 'null'}", f"data.evaluation=[{source}]"]))


def examples(config: Config, quarantine: Quarantine | None = None) -> list[Example]:
    source = config.data.evaluation[0]
    return load_examples(source, config.data.labels, seed=0, quarantine=quarantine or Quarantine())


@pytest.mark.parametrize("name", ["dev.jsonl", "dev.jsonl.gz", "validation.jsonl", "val.jsonl"])
def test_a_local_file_with_its_rationales(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "sst2" / name, RATED)
    config = resolved(tmp_path, "sst2")
    (source,) = config.data.evaluation
    assert (source.path, source.title) == (str(file), "sst2_dev")
    assert [e.rationale for e in examples(config)] == [(0, 0, 1, 0), (0, 0, 1, 0)]
    assert config.data.train == Source()  # what names no suite stays


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


def test_the_folder_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mr" / "train.jsonl", ROWS)
    monkeypatch.setenv("AFA_DATA", str(tmp_path))
    assert resolved(None, "mr", "train").data.evaluation[0].path == str(tmp_path / "mr" / "train.jsonl")
    for nowhere in ("~nobody-here", "a" * 300):
        monkeypatch.setenv("AFA_DATA", nowhere)
        with pytest.raises(AfaError, match=r"AFA_DATA = .*: no such folder"):
            resolved(None, "mr", "train")
    monkeypatch.setenv("AFA_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(AfaError, match=r"environment variable AFA_DATA = .*nowhere: no such folder"):
        resolved(None, "mr", "train")


def test_the_resolved_configuration_is_complete_and_reads_the_same(tmp_path: Path) -> None:
    write(tmp_path / "sst5" / "dev.jsonl", [{"text": f"review {k}", "label": k} for k in range(5)])
    config = resolved(tmp_path, "sst5")
    assert "suite:" not in dump_config(config)
    (tmp_path / "config.yaml").write_text(dump_config(config))
    again = load_config(str(tmp_path / "config.yaml"))
    assert again == config and resolve_suites(again) is again
    assert [e.label for e in examples(again)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("suite", "classes"), [("sst2", 2), ("tweeteval", 3), ("sst5", 5)])
def test_labels_and_prompts_come_with_the_suite(tmp_path: Path, suite: str, classes: int) -> None:
    write(tmp_path / suite / "dev.jsonl", [{"text": f"review {k}", "label": k} for k in range(classes)])
    config = resolved(tmp_path, suite)
    assert len(config.data.labels) == classes
    names = [config.prompts.train, *config.prompts.evaluation, "in_one_word"]
    templates = load_templates(config.prompts.file, names, tuple(config.data.labels))
    for template in templates.values():
        assert len(set(template.answers)) == classes
        assert template.chat and len(set(template.chat.answers)) == classes


def test_a_rationale_without_its_words_is_left_alone(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "tokens"} for row in RATED]
    write(tmp_path / "sst2" / "dev.jsonl", rows)
    config = resolved(tmp_path, "sst2")
    assert config.data.evaluation[0].rationale_column is None
    assert [e.rationale for e in examples(config)] == [None, None]


def test_a_prompt_file_of_the_user_stays(tmp_path: Path) -> None:
    write(tmp_path / "tweeteval" / "dev.jsonl", [{"text": f"review {k}", "label": k} for k in range(3)])
    source = "{path: 'suite:tweeteval', split: dev}"
    config = load_config(None, [f"data.suites_dir={tmp_path}", f"data.evaluation=[{source}]", "prompts.file=mine.yaml"])
    found = resolve_suites(config)
    assert found.prompts.file == "mine.yaml" and list(found.data.labels) == ["negative", "neutral", "positive"]


def test_settings_of_the_user_win(tmp_path: Path) -> None:
    rows = [{"text": f"review {k}", "label": k, "mine": "x"} for k in range(5)]
    write(tmp_path / "sst5" / "dev.jsonl", rows)
    source = "{path: 'suite:sst5', split: dev, name: five, group_column: mine, where: {label: [0, 1, 3, 4]}}"
    labels = "{negative: [0, 1], positive: [3, 4]}"
    config = resolve_suites(
        load_config(None, [f"data.suites_dir={tmp_path}", f"data.evaluation=[{source}]", f"data.labels={labels}"])
    )
    quarantine = Quarantine()
    found = examples(config, quarantine)
    assert [(e.label, e.group) for e in found] == [(0, "x"), (0, "x"), (1, "x"), (1, "x")]
    assert config.data.evaluation[0].title == "five"
    assert config.prompts.file == "builtin:sentiment"
    assert quarantine.left_out == {"where.label": 1} and quarantine.rows_read == 4 and not quarantine.rows
    assert "1 × left out by where.label" in quarantine.summary()


def test_what_is_not_there_is_named_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(AfaError) as found:
        resolved(tmp_path, "sst2")
    assert f"{tmp_path / 'sst2' / 'dev'}.jsonl" in str(found.value)
    assert "fields text, label, and if given tokens, token_labels" in str(found.value)
    assert "load_dataset('SetFit/sst2', split='validation')" in str(found.value)
    with pytest.raises(AfaError, match=r"data.suites_dir=DIR \(or AFA_DATA=DIR") as found:
        resolved(None, "yelp_sentences")
    assert "the hub has no copy that we know of" in str(found.value)
    with pytest.raises(AfaError, match="imdb has the splits train, test only"):
        resolved(tmp_path, "imdb", "dev")
    write(tmp_path / "sst2" / "train.jsonl", ROWS)
    with pytest.raises(AfaError, match=r"no split 'dev' in .*sst2; there are train"):
        resolved(tmp_path, "sst2")
    write(tmp_path / "sst2" / "dev.jsonl", ROWS)
    write(tmp_path / "sst2" / "validation.jsonl.gz", ROWS)
    with pytest.raises(AfaError, match=r"both .*dev.jsonl and .*validation.jsonl.gz are there"):
        resolved(tmp_path, "sst2")
    with pytest.raises(AfaError, match=r"suite:stt2: no such suite; .* did you mean suite:sst2"):
        resolved(tmp_path, "stt2")


def test_suites_with_different_labels_do_not_share_a_run(tmp_path: Path) -> None:
    write(tmp_path / "sst2" / "dev.jsonl", ROWS)
    write(tmp_path / "tweeteval" / "dev.jsonl", ROWS)
    both = "[{path: 'suite:sst2', split: dev}, {path: 'suite:tweeteval', split: dev}]"
    with pytest.raises(AfaError, match=r"suite:sst2 \(binary\), suite:tweeteval \(three\)"):
        resolve_suites(load_config(None, [f"data.suites_dir={tmp_path}", f"data.evaluation={both}"]))


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


def test_the_listing_says_what_is_where(tmp_path: Path) -> None:
    write(tmp_path / "sst2" / "dev.jsonl", ROWS)
    write(tmp_path / "sst2" / "train.jsonl.gz", ROWS)
    lines = list(listing(load_config(None, [f"data.suites_dir={tmp_path}"]).data))
    assert lines[0] == f"local folder: {tmp_path}"
    at = lines.index("\nsuite:sst2  (binary)  local: dev, train; hub: SetFit/sst2 (train, dev, test)")
    assert lines[at + 2] == "  fields text, label, and if given tokens, token_labels"
    assert any(line.startswith("  fields text or Text, label or Sentiment, and if given id, pair_id") for line in lines)
    assert "\nsuite:checklist  (binary)  builtin" in lines
    assert "\nsuite:yelp_sentences  (binary)  local: not there, folder yelp_sentences" in lines


def test_every_suite_is_well_formed() -> None:
    assert set(suites()) >= {"sst2", "sst5", "imdb", "mr", "cr", "yelp", "amazon", "tweeteval"}
    for suite in suites().values():
        assert suite.builtin or suite.folders
        assert set(suite.columns) <= set(Source.model_fields)
        assert suite.hub is None or set(suite.hub.splits) <= {"train", "dev", "test"}
    assert hub_command(find_suite("suite:tweeteval"), "dev").endswith(
        "load_dataset('cardiffnlp/tweet_eval', 'sentiment', split='validation')\""
    )


def test_builtin_suites() -> None:
    assert resolved(None, "planted").data.evaluation[0].path == "builtin:planted"
    assert len(examples(resolved(None, "planted"))) == 400
    checklist = resolved(None, "checklist")
    assert checklist.data.evaluation[0].title == "checklist"
    assert {e.side for e in examples(checklist)} == {"", "base", "changed"}


@pytest.mark.parametrize(
    ("name", "content"), [("train.jsonl.gz", b"junk"), ("train.csv.gz", gzip.compress(b"text,label\n" * 99)[:-9])]
)
def test_a_broken_archive_of_a_suite(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / name).write_bytes(content)
    with pytest.raises(AfaError, match=rf"sst2/{name}: damaged gzip archive .*; compress it anew"):
        resolved(tmp_path, "sst2", "train")


def test_what_bears_the_name_of_a_split_and_is_no_file(tmp_path: Path) -> None:
    file = tmp_path / "sst2" / "train.jsonl"
    file.mkdir(parents=True)
    with pytest.raises(AfaError, match=r"suite:sst2: .*sst2/train.jsonl is no file that can be read"):
        resolved(tmp_path, "sst2", "train")
    file.rmdir()
    for target in (file, tmp_path / "nowhere"):
        file.symlink_to(target)
        with pytest.raises(AfaError, match=r"suite:sst2: .*sst2/train.jsonl is no file that can be read"):
            resolved(tmp_path, "sst2", "train")
        file.unlink()
    file.mkdir()
    other = write(tmp_path / "sst2" / "train.jsonl.gz", ROWS)
    assert resolved(tmp_path, "sst2", "train").data.evaluation[0].path == str(other)
