"""builtin:planted: short reviews in which it is known which word decides, and which frequent words only seem to.

Everything here is our choice; the vocabulary lies in assets/data/planted.yaml. The grammar:

    review  = sentences in random order: cue, verdict, filler | joined, filler, filler?       15 to 32 words
    verdict = a frame with one decisive word ("The soup was exquisite.", "It is a shoddy lamp.")
    cue     = a frame with a day and a company ("I saw it on Friday with friends."); joined = both in one sentence
    filler  = a frame that says nothing of quality ("The menu has 14 pages.")

- The decisive word alone makes the label. There are over 70 per class, taken in turn from a shuffled list, so that each
  is as rare as the others: about 14 of 2000 training reviews. Its domain (film, food, product) fits. Test reviews use
  the same words: seen in training, but rarely.
- Day and company both take the side of one class. They are frequent, and in training they go with the label in 7 of 8
  reviews (`group` "aligned"), against it in 1 of 8 ("conflict"); in validation half and half; in test 2 and 6 of 8.
- `rationale` is 1 on the decisive word, 0 elsewhere.
- All frames and fillers serve both classes alike. Labels are balanced. No text stands twice, and a text's hash says
  which split it may stand in, so that splits never overlap, whatever their size and seed.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import yaml

from afa_llm.data.duplicates import normalised
from afa_llm.data.words import split_words
from afa_llm.errors import AfaError
from afa_llm.records import Example

CLASSES = ("negative", "positive")
SIZES = {"train": 2000, "validation": 400, "test": 400}
ALIGNED_OF_8 = {"train": 7, "validation": 4, "test": 2}
HASH_BUCKETS = {"train": range(0, 6), "validation": range(6, 8), "test": range(8, 10)}
DATA_SEED = 0


def planted_examples(split: str, count: int, seed: int) -> list[Example]:
    """`count` reviews of a split, labels 0 negative and 1 positive. A pure function; fewer are a prefix of more.

    Raises AfaError for an unknown split.
    """
    if split not in SIZES:
        raise AfaError(f"builtin:planted: no split {split!r}; there are {', '.join(SIZES)}")
    rng = random.Random(f"planted/{split}/{seed}")
    labels = _in_turn((0, 1), rng)
    sides = [_in_turn([True] * ALIGNED_OF_8[split] + [False] * (8 - ALIGNED_OF_8[split]), rng) for _ in CLASSES]
    words = [_in_turn(_decisive_words(name), rng) for name in CLASSES]
    examples: list[Example] = []
    seen: set[str] = set()
    while len(examples) < count:
        label = next(labels)
        aligned, (word, domain) = next(sides[label]), next(words[label])
        text = _new_text(split, seen, word, domain, label if aligned else 1 - label, rng)
        examples.append(_example(f"planted_{split}/{len(examples) + 1}", text, word, label, aligned))
    return examples


def _in_turn(items: Sequence[Any], rng: random.Random) -> Iterator[Any]:
    """All items in a shuffled order, again and again, so that counts differ by one at most."""
    while True:
        yield from rng.sample(list(items), len(items))


@functools.cache
def vocabulary() -> dict[str, Any]:
    file = resources.files("afa_llm") / "assets" / "data" / "planted.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _decisive_words(name: str) -> list[tuple[str, str]]:
    """(word, domain or "any") of a class."""
    return [(word, domain) for domain, words in vocabulary()["decisive"][name].items() for word in words]


def _new_text(split: str, seen: set[str], word: str, domain: str, side: int, rng: random.Random) -> str:
    """A review that no other has, and whose hash belongs to the split."""
    while True:
        text = _compose(word, domain if domain != "any" else rng.choice(sorted(vocabulary()["domains"])), side, rng)
        key = normalised(text)
        if key not in seen and split_of(text) == split:
            seen.add(key)
            return text


def split_of(text: str) -> str:
    """The one split a text may stand in: 6 of 10 train, 2 validation, 2 test, by hash of the normalised text."""
    bucket = hashlib.blake2b(normalised(text).encode(), digest_size=8).digest()[-1] % 10
    return next(split for split, buckets in HASH_BUCKETS.items() if bucket in buckets)


def _compose(word: str, domain: str, side: int, rng: random.Random) -> str:
    grammar, cues = vocabulary()["domains"][domain], vocabulary()["cues"][CLASSES[side]]
    company = rng.choice(cues["company"])
    slots = {
        "adj": word,
        "a_adj": f"{'an' if word[0] in 'aeiou' and not word.startswith('us') else 'a'} {word}",
        "noun": rng.choice(grammar["noun"]),
        "day": rng.choice(cues["day"]),
        "company": company,
        "Company": company.capitalize(),
    }
    if rng.random() < 0.7:
        frames = [rng.choice(grammar["cue"]), rng.choice(vocabulary()["verdict"]), rng.choice(grammar["filler"])]
    else:
        frames = [rng.choice(grammar["joined"]), *rng.sample(grammar["filler"], rng.choice((1, 2)))]
    rng.shuffle(frames)
    return " ".join(frame.format(**slots, **_small_slots(rng)) for frame in frames)


def _small_slots(rng: random.Random) -> dict[str, str]:
    return {
        "number": str(rng.randint(3, 60)),
        "place": rng.choice(vocabulary()["place"]),
        "thing": rng.choice(vocabulary()["thing"]),
    }


def _example(example_id: str, text: str, word: str, label: int, aligned: bool) -> Example:
    words = split_words(text)
    rationale = tuple(float(text[start:end] == word) for start, end in words)
    return Example(example_id, text, label, words, rationale, "aligned" if aligned else "conflict")
