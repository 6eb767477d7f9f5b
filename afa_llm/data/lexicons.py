"""An opinion lexicon from a user's file: which words can carry an opinion at all."""

from __future__ import annotations

import os
from pathlib import Path

from afa_llm.errors import AfaError


def read_lexicon(path: str | None) -> frozenset[str]:
    """The words of a text file, case-folded; empty where none is given.

    One word a line, whatever stands behind a tab is not read except a score of 0 in the second column, which leaves the
    word out (AFINN, VADER). Lines that begin with ; or # are comments. Raises AfaError: not readable, or no words.
    """
    if path is None:
        return frozenset()
    try:
        text = Path(os.path.expanduser(path)).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AfaError(f"evaluation.lexicon = {path}: cannot be read: {error}; name a text file in UTF-8") from None
    words = {word for line in text.splitlines() if (word := _word(line))}
    if not words:
        raise AfaError(f"evaluation.lexicon = {path}: holds no words; write one a line")
    return frozenset(words)


def _word(line: str) -> str:
    word, _, rest = line.partition("\t")
    if word.lstrip().startswith((";", "#")):
        return ""
    try:
        neutral = float(rest.partition("\t")[0]) == 0
    except ValueError:
        neutral = False
    return "" if neutral else word.strip().casefold()
