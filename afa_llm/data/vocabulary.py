"""What each token of a vocabulary spells inside a text, and which tokens can begin or go on a word.

Legend: a piece is the text of one token where it stands after another one, its leading space included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from afa_llm.data.words import split_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNDECODED = "\ufffd"  # a byte of a character that takes several tokens


@dataclass(frozen=True)
class WordKind:
    """What a word that stands in for another has to share with it: a space before it or none, letters or signs."""

    spaced: bool
    lettered: bool


class Vocabulary:
    """The pieces of a tokenizer; None for special tokens and for what is no text of its own."""

    def __init__(self, pieces: Sequence[str | None]) -> None:
        self.pieces = tuple(pieces)
        self._starts: dict[WordKind, frozenset[int]] = {}

    def text(self, token_ids: Sequence[int]) -> str | None:
        """The tokens' text inside a text; None where one of them has none."""
        pieces = [self.pieces[token] for token in token_ids]
        return None if None in pieces else "".join(map(str, pieces))

    def kind(self, word_ids: Sequence[int]) -> WordKind | None:
        """The kind of a word from its tokens; None where it cannot be told."""
        text = self.text(word_ids)
        if not text or not text.strip():
            return None
        return WordKind(text[0].isspace(), any(map(str.isalnum, text)))

    def is_word(self, word_ids: Sequence[int], kind: WordKind) -> bool:
        """Whether the tokens spell exactly one word of that kind, with no white space but the one before it."""
        text = self.text(word_ids)
        return text is not None and _is_word(text, kind)

    def same_word(self, word_ids: Sequence[int], others: Sequence[int]) -> bool:
        """Whether both spell the same word, capitals and spaces aside."""
        one, two = self.text(word_ids), self.text(others)
        return one is not None and two is not None and one.strip().casefold() == two.strip().casefold()

    def starts(self, kind: WordKind) -> frozenset[int]:
        """Tokens that a word of that kind can begin with."""
        if kind not in self._starts:
            pieces = enumerate(self.pieces)
            self._starts[kind] = frozenset(token for token, piece in pieces if piece and _is_word(piece, kind))
        return self._starts[kind]

    @cached_property
    def inner(self) -> frozenset[int]:
        """Tokens that do not end a word by a space or a line of their own: visible from their first character on."""
        return frozenset(token for token, piece in enumerate(self.pieces) if piece and not piece[0].isspace())


@lru_cache(maxsize=1 << 18)
def _is_word(text: str, kind: WordKind) -> bool:
    word = text[1:] if kind.spaced else text
    if kind.spaced and not text.startswith(" "):
        return False
    return split_words(word) == ((0, len(word)),) and any(map(str.isalnum, word)) == kind.lettered


def load_vocabulary(tokenizer: PreTrainedTokenizerBase, size: int | None = None) -> Vocabulary:
    """The pieces of a tokenizer, by decoding each token after an anchor: decoders drop a text's first space.

    `size`: how many ids the model has; those the tokenizer does not know have no piece.
    """
    known = len(tokenizer)
    anchor = tokenizer.encode("a", add_special_tokens=False)
    before = str(tokenizer.decode(anchor, clean_up_tokenization_spaces=False))
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    texts = tokenizer.batch_decode([[*anchor, token] for token in range(known)], clean_up_tokenization_spaces=False)
    pieces: list[str | None] = []
    for token, text in enumerate(map(str, texts)):
        spelled = text.removeprefix(before) if text.startswith(before) else ""
        pieces.append(spelled if spelled and token not in special and UNDECODED not in spelled else None)
    return Vocabulary(pieces + [None] * max(0, (size or known) - known))
