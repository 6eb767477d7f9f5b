"""Words of a review as character spans: the units that masks hide and that the focus is measured on (our choice).

A word is a run of letters, digits and their combining marks, with inner apostrophes and hyphens (don't, well-made).
Scripts that set no spaces (Han, Kana, Thai, Lao, Burmese, Khmer) give one word per character with its marks. Any other
run of visible characters (punctuation, emoji) is a word of its own. White space, control and zero-width characters
alone are no word, nor is `<br />`, which stands for a line end in IMDB: as a word, "br" would be the rarest one of a
review for a model trained on other texts.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence

Spans = tuple[tuple[int, int], ...]

BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
INNER = frozenset("'’-‐‑")
# Ranges of scripts written without spaces: Thai and Lao, Burmese, Khmer, Kana, Han and its extensions, compatibility
# ideographs. (A Thai review would be a single word, of which no mask can hide anything.)
UNSPACED = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3041, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D),
    (0x20000, 0x3FFFF),
)
# One letter per character: w letter or digit, c unspaced script, m mark, f control or format, i inner sign,
# p other visible, s space. A zero-width joiner or a mark belongs to what stands before it.
WORD = re.compile(r"w[wmf]*(?:i(?=w)[wmf]+)*|c[mf]*|[pmi][pmif]*")

# How the Penn Treebank and its followers write what stands in the text otherwise.
BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
BRACKET = re.compile("|".join(BRACKETS), re.IGNORECASE)
ESCAPES = {
    "``": ('"', "“", "„", "«"),
    "''": ('"', "”", "»", "’’"),
    '"': ("“", "”", "``", "''"),
    "`": ("‘", "'", "’"),
    "'": ("’", "‘", "`"),
    "--": ("—", "–"),
    "...": ("…",),
}
LOOSE = str.maketrans({"’": "'", "‘": "'", "‐": "-", "‑": "-"})


@functools.lru_cache(maxsize=65536)
def _kind(character: str) -> str:
    if character.isspace():
        return "s"
    if character in INNER:
        return "i"
    category = unicodedata.category(character)
    if category[0] in "LN":
        point = ord(character)
        return "c" if any(first <= point <= last for first, last in UNSPACED) else "w"
    if category[0] == "M":
        return "m"
    return "f" if category in ("Cc", "Cf") else "p"


def split_words(text: str) -> Spans:
    """Character spans [start, end) of the words, in order, without overlap."""
    kinds = "".join(map(_kind, blank_breaks(text)))
    return tuple(_span(*match.span()) for match in WORD.finditer(kinds))


@functools.lru_cache(maxsize=1 << 18)
def _span(start: int, end: int) -> tuple[int, int]:
    """One tuple for all reviews that have a word there: of their own they were most of what a rank holds in memory."""
    return start, end


def has_word(text: str) -> bool:
    """Whether `split_words` finds any."""
    return any(_kind(character) not in "sf" for character in blank_breaks(text))


def align_words(text: str, words: Sequence[str]) -> Spans | None:
    """Spans of given words, found in order in the text; None where they don't align.

    Treebank escapes are understood (-LRB-, ``, \\/), as are typographic apostrophes. Between two words only white space
    and signs may be left over, never a letter or digit: words that skip part of the review don't describe it. Line
    breaks (<br />) may be among the words or not.
    """
    literal = _align(text, words)
    return _align(blank_breaks(text), words) if literal is None else literal


def blank_breaks(text: str) -> str:
    """The text with blanks for its HTML line breaks; every other character keeps its place."""
    return BREAK.sub(lambda match: " " * len(match.group()), text)


def _align(text: str, words: Sequence[str]) -> Spans | None:
    spans, at = [], 0
    for word in words:
        found = _find(text, at, tuple(_spellings(word)))
        if found is None:
            return None
        spans.append(found)
        at = found[1]
    if any(character.isalnum() for character in text[at:]):
        return None
    return tuple(spans)


def _spellings(word: str) -> Iterator[str]:
    """The word as it may stand in the text, the literal one first."""
    word = word.strip()
    yield word
    yield from ESCAPES.get(word, ())
    if "-" in word or "\\" in word:
        plain = BRACKET.sub(lambda match: BRACKETS[match.group().upper()], word)
        yield plain.replace("\\/", "/").replace("\\*", "*")


def _find(text: str, at: int, spellings: tuple[str, ...]) -> tuple[int, int] | None:
    """First place from `at` on where a spelling stands with nothing but signs and white space before it."""
    if not spellings[0]:
        return None
    while at < len(text):
        for spelling in spellings:
            end = at + len(spelling)
            if text.startswith(spelling, at) or text[at:end].translate(LOOSE) == spelling.translate(LOOSE):
                return at, end
        if text[at].isalnum():
            return None
        at += 1
    return None
