"""A planted shortcut: exact shares, groups, and words and rationales that move along."""

from __future__ import annotations

import numpy as np
import pytest

from afa_llm.config_data import Source, Spurious
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.sources import load_examples
from afa_llm.data.spurious import inject, taken_out
from afa_llm.data.words import split_words
from afa_llm.errors import AfaError
from afa_llm.records import Example

LABELS = ("negative", "positive")


def review(number: int, text: str = "The film is (really) superb!") -> Example:
    words = split_words(text)
    rationale = tuple(float(text[a:b] == "superb") for a, b in words)
    return Example(f"r{number}", text, number % 2, words, rationale)


def source(**settings) -> Source:
    return Source(spurious=Spurious(**settings))


def has(example: Example) -> bool:
    return "honestly" in example.text


@pytest.mark.parametrize("correlation", [0.9, -0.9, 0.0, 1.0, -1.0, 0.5])
def test_the_correlation_is_the_one_asked_for(correlation: float) -> None:
    reviews = [review(k) for k in range(200)]
    found = inject(reviews, source(correlation=correlation), LABELS, seed=0)
    with_word = np.array([has(e) for e in found], dtype=float)
    label = np.array([e.label for e in found], dtype=float)
    if abs(correlation) == 1:
        assert with_word.tolist() == (label == (correlation > 0)).tolist()
    else:
        assert np.corrcoef(with_word, label)[0, 1] == pytest.approx(correlation, abs=0.02)  # rounding to reviews
    assert [e.example_id for e in found] == [e.example_id for e in reviews]


def test_groups_are_label_and_word() -> None:
    found = inject([review(k) for k in range(40)], source(correlation=0.5), LABELS, seed=0)
    counts = {group: sum(e.group == group for e in found) for group in {e.group for e in found}}
    assert counts == {
        "positive, with honestly": 15,
        "positive, without honestly": 5,
        "negative, with honestly": 5,
        "negative, without honestly": 15,
    }
    for example in found:
        assert example.group == f"{LABELS[example.label]}, {'with' if has(example) else 'without'} honestly"


@pytest.mark.parametrize("place", ["start", "end", "random"])
def test_words_and_rationales_move_along(place: str) -> None:
    found = inject([review(k) for k in range(60)], source(correlation=1.0, place=place), LABELS, seed=3)
    places = set()
    for example in filter(has, found):
        words = [example.text[a:b] for a, b in example.words]
        assert "".join(words).replace("honestly", "") == "Thefilmis(really)superb!"
        marked = [w for w, value in zip(words, example.rationale or (), strict=True) if value]
        assert marked == ["superb"]
        places.add(words.index("honestly"))
    assert len(places) > 3 if place == "random" else places == {0 if place == "start" else 8}


def test_seeds_choose_other_reviews_and_an_unknown_label_is_refused() -> None:
    reviews = [review(k) for k in range(100)]
    first, second = (inject(reviews, source(correlation=0.2), LABELS, seed=seed) for seed in (0, 1))
    assert [has(e) for e in first] != [has(e) for e in second]
    assert first == inject(reviews, source(correlation=0.2), LABELS, seed=0)
    with pytest.raises(AfaError, match=r"spurious.label = great: no name of data.labels; there are negative, positive"):
        inject(reviews, source(label="great"), LABELS, seed=0)


def test_a_source_carries_it() -> None:
    labels: dict[str, tuple[str | int | float | bool, ...]] = {"negative": (0,), "positive": (1,)}
    settings = Source(split="validation", spurious=Spurious(correlation=-1.0), max_samples=50)
    found = load_examples(settings, labels, seed=0, quarantine=Quarantine())
    assert {e.group for e in found} == {"negative, with honestly", "positive, without honestly"}


@pytest.mark.parametrize("place", ["start", "end", "random"])
@pytest.mark.parametrize(
    "text", ["The film is (really) superb!", "honestly", "A film, honestly", "honestly honestly so"]
)
def test_reviews_are_the_same_once_the_word_is_taken_out(place: str, text: str) -> None:
    given = [review(k, text) for k in range(8)]
    planted = inject(given, source(correlation=1, place=place), LABELS, seed=0)
    assert len({e.text for e in planted}) > 1
    assert len({e.text for e in taken_out([*given, *planted], {"honestly", "so"})}) == 1
    assert taken_out(given, set()) == given


def test_labels_that_nobody_asks_for_are_in_a_group_of_no_label() -> None:
    """Under an evaluation's own labels a training review may have none of them (labels.OTHER)."""
    reviews = [Example(f"r{k}", "a fine film", label, ()) for k, label in enumerate([-1, 1] * 4)]
    found = inject(reviews, source(correlation=1.0), LABELS, seed=0)
    assert {e.group for e in found} == {"another label, without honestly", "positive, with honestly"}
