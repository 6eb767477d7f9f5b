"""The behavioural tests keep their promises: labels, pairs, and changes that change what they say."""

from __future__ import annotations

from collections import Counter, defaultdict

from afa_llm.data.checklist import CASES, checklist_examples, grammar, kind_of
from afa_llm.records import Example

EXAMPLES = checklist_examples()
OPINIONS = {word: label for label, slot in enumerate(("bad", "good")) for word in grammar()["slots"][slot]}


def cases(kind: str) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = defaultdict(list)
    for example in EXAMPLES:
        if kind_of(example.group) == kind:
            found[example.pair].append(example)
    return found


def opinions(example: Example) -> list[int]:
    return [OPINIONS[w] for w in (example.text[a:b] for a, b in example.words) if w in OPINIONS]


def test_it_is_the_same_every_time_and_ids_are_unique() -> None:
    assert checklist_examples() == EXAMPLES
    assert len({e.example_id for e in EXAMPLES}) == len(EXAMPLES)
    assert checklist_examples(3)[:3] == EXAMPLES[:3]


def test_words_have_one_polarity_and_are_no_answers() -> None:
    slots = grammar()["slots"]
    assert not set(slots["good"]) & set(slots["bad"])
    assert not set(OPINIONS) & {"great", "good", "bad", "terrible", "positive", "negative", "okay", "neutral"}
    assert len(slots["good"]) == len(slots["bad"])


def test_minimum_functionality() -> None:
    by_group: dict[str, list[Example]] = defaultdict(list)
    for example in cases("MFT")[""]:
        by_group[example.group].append(example)
    assert all(len(found) == CASES for found in by_group.values())
    for name in ("MFT opinion word", "MFT intensifier"):
        assert Counter(e.label for e in by_group[name]) == {0: CASES / 2, 1: CASES / 2}
        assert all(opinions(e) == [e.label] for e in by_group[name])
    for name in ("MFT negated praise", "MFT negated criticism", "MFT negation further off"):
        assert all(opinions(e) == [1 - e.label] for e in by_group[name])  # the opinion word says the opposite
    assert all(opinions(e)[-1] == e.label for e in by_group["MFT then and now"])


def test_invariance_changes_something_but_no_opinion() -> None:
    for members in cases("INV").values():
        assert members[0].side == "base" and {e.side for e in members[1:]} == {"changed"}
        assert len({e.text for e in members}) == len(members) >= 2
        assert len({e.label for e in members}) == 1
        assert len({tuple(opinions(e)) for e in members}) == 1 and len(opinions(members[0])) == 1
    typos = [m for name, m in cases("INV").items() if "typos" in name]
    for base, *changed in typos:
        for example in changed:
            assert sorted(example.text) == sorted(base.text) and example.text != base.text
            assert sum(a != b for a, b in zip(base.text, example.text, strict=True)) == 2


def test_directions_add_to_the_base() -> None:
    for name, (base, changed) in cases("DIR").items():
        assert (base.side, changed.side) == ("base", "changed")
        assert base.label == changed.label
        if "phrase added" in name:
            assert changed.text.startswith(base.text + " ")
        else:
            assert len(changed.words) > len(base.words)


def test_kinds() -> None:
    kinds = {"MFT negation": "MFT", "INV x": "INV", "DIR y": "DIR", "": "", "MFTx": "", "aligned": ""}
    assert {group: kind_of(group) for group in kinds} == kinds
