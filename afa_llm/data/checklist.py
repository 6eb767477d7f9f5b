"""builtin:checklist: behavioural tests from templates, in the style of CheckList (Ribeiro et al. 2020, arXiv
2005.04118).

Minimum functionality (MFT): short reviews whose label nobody doubts. Invariance (INV): a review and one or two changes
of it that must leave the answer alone (a name, a place, a neutral word, a typo, a contraction). Directional (DIR): a
review and one with a clearly good or bad phrase added, which must move the answer towards that label. Frames and words
are our own and lie in assets/data/checklist.yaml; evaluation/behaviour.py scores the answers.

`group` is kind and name of the test (`INV names`), `pair` the case, `side` base or changed. Any file with such columns
is scored the same way, so tests of your own need no code.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import yaml

from afa_llm.data.planted import CLASSES
from afa_llm.data.words import split_words
from afa_llm.records import Example

KINDS = ("MFT", "INV", "DIR")
BASE, CHANGED = "base", "changed"
CASES = 40  # of each test
CHANGES = 2  # of each case of an invariance test
CONTRACTIONS = (("I am", "I'm"), ("it is", "it's"), ("It is", "It's"), ("We have", "We've"), ("would not", "wouldn't"))


def checklist_examples(cases: int = CASES) -> list[Example]:
    """All tests, `cases` each, labels 0 negative and 1 positive. A pure function."""
    return [example for test in grammar()["tests"] for example in _examples(test, cases)]


def kind_of(group: str) -> str:
    """MFT, INV or DIR where a group names a test, else empty."""
    kind = group.partition(" ")[0]
    return kind if kind in KINDS else ""


@functools.cache
def grammar() -> dict[str, Any]:
    file = resources.files("afa_llm") / "assets" / "data" / "checklist.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _examples(test: dict[str, Any], cases: int) -> Iterator[Example]:
    """The cases of one test, labels in turn; no text stands twice among the bases."""
    rng = random.Random(f"checklist/{test['name']}")
    group = f"{test['kind']} {test['name']}"
    labels = [label for label, name in enumerate(CLASSES) if name in test["cases"]]
    seen: set[tuple[str, ...]] = set()
    while len(seen) < cases:
        number, label = len(seen), labels[len(seen) % len(labels)]
        texts = _texts(test, CLASSES[label], rng)
        if texts in seen:
            continue
        seen.add(texts)
        for k, text in enumerate(texts):
            pair = f"{group}/{number + 1}" if test["kind"] != "MFT" else ""
            side = ("" if not pair else BASE) if k == 0 else CHANGED
            yield Example(f"{group}/{number + 1}/{k}", text, label, split_words(text), None, group, pair, side)


def _texts(test: dict[str, Any], label: str, rng: random.Random) -> tuple[str, ...]:
    """The base and its changes."""
    frame = rng.choice(test["cases"][label])
    values = {name: rng.choice(words) for name, words in grammar()["slots"].items()}
    if isinstance(frame, list):
        return tuple(part.format(**values) for part in frame)
    text = frame.format(**values)
    if "add" in test:
        return text, text + rng.choice(test["add"][label])
    if "change" not in test:
        return (text,)
    return text, *_changed(test["change"], frame, values, rng)


def _changed(change: Any, frame: str, values: dict[str, str], rng: random.Random) -> Iterator[str]:
    text = frame.format(**values)
    if change == "contraction":
        yield _contracted(text)
        return
    slots = [name for name in ([change] if isinstance(change, str) else change) if f"{{{name}}}" in frame]
    others = {name: rng.sample([w for w in grammar()["slots"][name] if w != values[name]], CHANGES) for name in slots
              if name in grammar()["slots"]}  # fmt: skip
    for k in range(CHANGES):
        if change == "typo":
            yield _with_typo(text, (values["good"], values["bad"]), rng)
        else:
            yield frame.format(**{**values, **{name: words[k] for name, words in others.items()}})


def _contracted(text: str) -> str:
    for long, short in CONTRACTIONS:
        text = text.replace(long, short)
    return text


def _with_typo(text: str, spared: Sequence[str], rng: random.Random) -> str:
    """Two neighbouring letters inside a word of four letters or more change places; opinion words stay whole."""
    words = [m for m in re.finditer(r"[A-Za-z]{4,}", text) if m.group() not in spared and _swaps(m.group())]
    word = rng.choice(words)
    at = word.start() + rng.choice(_swaps(word.group()))
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _swaps(word: str) -> list[int]:
    """Places in a word, past its first letter, where swapping with the next letter changes it."""
    return [k for k in range(1, len(word) - 1) if word[k] != word[k + 1]]
