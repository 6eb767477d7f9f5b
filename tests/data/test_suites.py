"""Suites by name: from local files in every layout, from nowhere (told how to get them), with labels and prompts."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from suite_files import RATED, ROWS, examples, resolved, write

from afa_llm.config_data import Source
from afa_llm.config_loading import dump_config, load_config
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.suite_catalogue import find_suite, hub_command, suites
from afa_llm.data.suites import resolve_suites
from afa_llm.data.templates import load_templates
from afa_llm.errors import AfaError


@pytest.mark.parametrize("name", ["dev.jsonl", "dev.jsonl.gz", "validation.jsonl", "val.jsonl"])
def test_a_local_file_with_its_rationales(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "sst2" / name, RATED)
    config = resolved(tmp_path, "sst2")
    (source,) = config.data.evaluation
    assert (source.path, source.title) == (str(file), "sst2_dev")
    assert [e.rationale for e in examples(config)] == [(0, 0, 1, 0), (0, 0, 1, 0)]
    assert config.data.train == Source()  # what names no suite stays


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
    ("name", "content"),
    [("train.jsonl.gz", b"junk"), ("train.csv.gz", gzip.compress(b"text,label\n" * 99, mtime=0)[:-9])],
    ids=["junk", "cut"],
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
