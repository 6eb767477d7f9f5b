"""Opinion lexicons in the layouts that are around."""

from __future__ import annotations

from pathlib import Path

import pytest

from afa_llm.data.lexicons import read_lexicon
from afa_llm.errors import AfaError


def test_layouts(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("; a comment\n# another\n\nGood\nawful\t-3\nplain\t0\nfine\t1.5\t0.8\nodd\tword\n")
    assert read_lexicon(str(path)) == {"good", "awful", "fine", "odd"}
    assert read_lexicon(None) == frozenset()


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AfaError, match=r"evaluation.lexicon = .*nowhere.txt: cannot be read"):
        read_lexicon(str(tmp_path / "nowhere.txt"))
    with pytest.raises(AfaError, match=r"evaluation.lexicon = ~nobody-here/words.txt: cannot be read"):
        read_lexicon("~nobody-here/words.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(AfaError, match="name a text file in UTF-8"):
        read_lexicon(str(tmp_path / "latin.txt"))
    (tmp_path / "empty.txt").write_text("; nothing\n")
    with pytest.raises(AfaError, match="holds no words"):
        read_lexicon(str(tmp_path / "empty.txt"))
