"""Pieces of vocabularies, and which tokens make a word."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from afa_llm.config import Config
from afa_llm.data.vocabulary import Vocabulary, WordKind, load_vocabulary
from afa_llm.models.adapters import load_tokenizer

WORD, BARE = WordKind(spaced=True, lettered=True), WordKind(spaced=False, lettered=True)
SIGN = WordKind(spaced=False, lettered=False)
PIECES = (
    None,
    " film",
    "film",
    "s",
    "'s",
    ".",
    " .",
    "...",
    "\n",
    " \n",
    " 10",
    " é",
    "ing",
    "-",
    " don't",
    " a b",
    " ",
    "",
)


def vocabulary() -> Vocabulary:
    return Vocabulary(PIECES)


def ids(*pieces: str) -> tuple[int, ...]:
    return tuple(PIECES.index(piece) for piece in pieces)


def metaspace_tokenizer() -> Any:
    """As Llama 2 and T5 spell: a space is part of the token, and the decoder drops the first one of a text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=["<unk>", "<s>"], show_progress=False)
    tokenizer.train_from_iterator(["a good film and a bad film, a good end"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


@pytest.mark.parametrize("which", ["pocket", "metaspace"])
def test_pieces_spell_a_text_together(which: str) -> None:
    tokenizer = load_tokenizer(Config().model) if which == "pocket" else metaspace_tokenizer()
    words = load_vocabulary(tokenizer)
    assert (
        words.text(tokenizer.encode("and a good film, a bad end", add_special_tokens=False)[1:])
        == " a good film, a bad end"
    )
    assert all(words.pieces[token] is None for token in tokenizer.all_special_ids)
    good = tokenizer.encode("a good", add_special_tokens=False)[-1]
    assert words.pieces[good] == " good" and good in words.starts(WORD)


def test_ids_beyond_the_tokenizer_have_no_piece() -> None:
    tokenizer = metaspace_tokenizer()
    words = load_vocabulary(tokenizer, len(tokenizer) + 3)
    assert len(words.pieces) == len(tokenizer) + 3
    assert words.pieces[-3:] == (None, None, None)


def test_what_begins_and_what_goes_on_a_word() -> None:
    words = vocabulary()
    assert words.starts(WORD) == set(ids(" film", " 10", " é", " don't"))
    assert words.starts(BARE) == set(ids("film", "s", "ing"))
    assert words.starts(SIGN) == set(ids(".", "...", "-"))
    assert words.starts(WordKind(spaced=True, lettered=False)) == set(ids(" ."))
    assert words.inner == set(ids("film", "s", "'s", ".", "...", "ing", "-"))


@pytest.mark.parametrize(
    ("pieces", "kind", "expected"),
    [
        ((" film", "s"), WORD, True),
        ((" film", "'s"), WORD, True),
        ((" film", "-", "ing"), WORD, True),
        ((" film", "-"), WORD, False),
        ((" film", "."), WORD, False),
        ((" film", " film"), WORD, False),
        ((" film", "\n"), WORD, False),
        (("film",), WORD, False),
        ((" film",), BARE, False),
        (("film", "ing"), BARE, True),
        ((".", "..."), SIGN, True),
        ((".", "s"), SIGN, False),
        ((" a b",), WORD, False),
    ],
)
def test_one_word_of_its_kind(pieces: tuple[str, ...], kind: WordKind, expected: bool) -> None:
    assert vocabulary().is_word(ids(*pieces), kind) is expected


def test_special_tokens_make_no_word() -> None:
    words = vocabulary()
    assert words.text((0, 1)) is None and not words.is_word((1, 0), WORD)
    assert words.kind((0,)) is None and words.kind(ids(" ")) is None and words.kind(ids("")) is None


def test_the_kind_of_a_word() -> None:
    words = vocabulary()
    assert [words.kind(ids(p)) for p in (" film", "film", "...", " 10")] == [WORD, BARE, SIGN, WORD]


def test_spaces_and_capitals_make_no_other_word() -> None:
    words = Vocabulary((" Film", "film", " fil", "m", " films"))
    assert words.same_word((0,), (1,)) and words.same_word((0,), (2, 3))
    assert not words.same_word((0,), (4,))
