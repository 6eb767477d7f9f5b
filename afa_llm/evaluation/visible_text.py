"""Reviews are hostile text: what a page or a terminal would obey instead of show is made visible."""

from __future__ import annotations

import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that reorder what stands around them."""


def visible(text: str) -> str:
    """The text with control characters (but line feed and tab), lone surrogates and bidi controls as U+FFFD."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if _obeyed(character) else character for character in text)


def _obeyed(character: str) -> bool:
    return character in _BIDI or (unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t")
