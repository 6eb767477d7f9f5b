"""The planted data keep their promises: what decides, what only seems to, and that splits never overlap."""

from __future__ import annotations

from collections import Counter

import pytest

from afa_llm.data.duplicates import find_duplicates, normalised_texts
from afa_llm.data.planted import CLASSES, SIZES, planted_examples, split_of, vocabulary
from afa_llm.errors import AfaError
from afa_llm.records import Example

SPLITS = {split: planted_examples(split, size, 0) for split, size in SIZES.items()}
DECISIVE = {name: [w for words in vocabulary()["decisive"][name].values() for w in words] for name in CLASSES}


def decisive(example: Example) -> list[str]:
    assert example.rationale is not None
    marked = zip(example.words, example.rationale, strict=True)
    return [example.text[start:end] for (start, end), value in marked if value]


def word_counts(examples: list[Example]) -> Counter[str]:
    return Counter(example.text[a:b].lower() for example in examples for a, b in example.words)


def test_vocabulary() -> None:
    words = DECISIVE["negative"] + DECISIVE["positive"]
    assert len(words) == len(set(words)) == 144
    assert len(DECISIVE["negative"]) == len(DECISIVE["positive"]) == 72
    # Decisive words stand nowhere else in the grammar, and none is an answer word of the builtin prompts.
    assert not set(words) & {"great", "good", "bad", "terrible", "positive", "negative"}


@pytest.mark.parametrize("split", SIZES)
def test_one_decisive_word_makes_the_label(split: str) -> None:
    for example in SPLITS[split]:
        (word,) = decisive(example)
        assert word in DECISIVE[CLASSES[example.label]]
        everything = [example.text[start:end] for start, end in example.words]
        assert sum(w in DECISIVE["negative"] + DECISIVE["positive"] for w in everything) == 1
        assert example.rationale is not None
        assert set(example.rationale) == {0.0, 1.0}


@pytest.mark.parametrize(("split", "aligned"), [("train", 0.875), ("validation", 0.5), ("test", 0.25)])
def test_labels_are_balanced_and_cues_go_with_them_as_said(split: str, aligned: float) -> None:
    examples = SPLITS[split]
    assert len(examples) == SIZES[split]
    for label in (0, 1):
        of_class = [example for example in examples if example.label == label]
        assert len(of_class) == len(examples) / 2
        assert sum(example.group == "aligned" for example in of_class) == aligned * len(of_class)
    for example in examples:
        sides = [
            all(
                any(cue.lower() in example.text.lower() for cue in cues) for cues in vocabulary()["cues"][name].values()
            )
            for name in CLASSES
        ]
        assert sides[example.label] == (example.group == "aligned")
        assert sum(sides) == 1


def test_decisive_words_are_rare_and_cues_are_frequent() -> None:
    counts = word_counts(SPLITS["train"])
    assert {counts[word] for words in DECISIVE.values() for word in words} <= {13, 14}
    assert min(counts[cue] for cue in ("friday", "monday")) > 900
    assert min(counts[cue] for cue in ("friends", "sister", "colleagues", "cousin")) > 400
    assert all(counts[word] for example in SPLITS["test"] for word in decisive(example))


def test_no_other_word_tells_the_classes_apart() -> None:
    """Beyond decisive words and cues: at most 2.9 standard deviations of a fair coin, over 380 words."""
    told = {w for words in DECISIVE.values() for w in words} | {
        "friday",
        "monday",
        "friends",
        "sister",
        "colleagues",
        "cousin",
    }
    of_class = [word_counts([e for e in SPLITS["train"] if e.label == label]) for label in (0, 1)]
    for word in (of_class[0] + of_class[1]).keys() - told - {"a", "an"}:
        total = of_class[0][word] + of_class[1][word]
        assert abs(of_class[0][word] - of_class[1][word]) < 4 * total**0.5, word


def test_reviews_are_short_distinct_and_splits_apart() -> None:
    for split, examples in SPLITS.items():
        assert len({example.text for example in examples}) == len(examples)
        assert {split_of(example.text) for example in examples} == {split}
        spoken = [sum(e.text[a].isalnum() for a, _ in e.words) for e in examples]
        assert min(spoken) >= 10
        assert max(spoken) <= 32
        for other in SIZES:
            if other != split:
                assert find_duplicates(normalised_texts(planted_examples(other, 1000, 7)), examples) == []


def test_positions_of_the_decisive_word_vary() -> None:
    places = [e.rationale.index(1.0) / len(e.words) for e in SPLITS["train"] if e.rationale]
    thirds = Counter(int(3 * place) for place in places)
    assert min(thirds.values()) > 400


def test_pure_seeded_and_prefix_stable() -> None:
    assert planted_examples("test", 400, 0) == SPLITS["test"]
    assert planted_examples("test", 40, 0) == SPLITS["test"][:40]
    assert planted_examples("test", 40, 1) != SPLITS["test"][:40]
    assert planted_examples("train", 0, 0) == []


def test_unknown_split() -> None:
    with pytest.raises(AfaError, match="no split 'dev'; there are train, validation, test"):
        planted_examples("dev", 1, 0)


def test_articles_fit() -> None:
    for example in SPLITS["train"]:
        (word,) = decisive(example)
        before = example.text.split(word)[0].split()
        if before and before[-1] in ("a", "an"):
            assert (before[-1] == "an") == (word[0] in "aeiou" and word not in ("useless", "user-friendly")), (
                example.text
            )
