"""Columns that are not there, and where they seem to be."""

import json
from pathlib import Path

import pytest
from row_files import load

from afa_llm.errors import AfaError


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("r.csv", "text;label\na;1\n", "separated by semicolons, a .csv has commas: save it so$"),
        ("r.csv", "text\tlabel\na\t1\n", "separated by tabs, a .csv has commas: save it so, or end its name in .tsv"),
        ("r.csv", "text|label\na|1\n", "separated by vertical bars"),
        ("r.json", json.dumps({"version": 1, "data": [{"text": "a", "label": 1}]}, indent=1), "stand in 'data': save"),
        ("r.csv", "Text,label\na,1\n", "did you mean 'Text'"),
        ("r.csv", "a fine film,1\na dull film,0\n", "there are a fine film, 1$"),
    ],
)
def test_a_missing_column_comes_with_a_hint(tmp_path: Path, name: str, content: str, hint: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(AfaError, match=rf"{name}: no column 'text' \(data source r, text_column\); .*{hint}"):
        load(str(tmp_path / name))


def test_an_object_for_a_text_is_called_so(tmp_path: Path) -> None:
    """The message named a class of ours."""
    (tmp_path / "r.json").write_text(json.dumps({"text": {"0": "a"}, "label": {"0": 1}}))
    with pytest.raises(AfaError, match="text has type object, not string"):
        load(str(tmp_path / "r.json"))
