import pytest

from afa_llm.data.duplicates import check_overlap, check_sets, find_duplicates, normalised, normalised_texts
from afa_llm.errors import AfaError
from afa_llm.records import Example


def examples(name: str, *texts: str) -> list[Example]:
    return [Example(f"{name}/{k}", text, 0, ()) for k, text in enumerate(texts)]


TRAIN = examples("train", "It's a lovely film.", "Dull", "👍 👍", "ﬁne café １")
TEST = examples("test", "it 's a LOVELY film !", "dully", "👍👍", "👎", "Fine cafe\u0301 1", "new")


def test_spacing_case_and_signs_make_no_difference() -> None:
    assert find_duplicates(normalised_texts(TRAIN), TEST) == ["test/0", "test/2", "test/4"]


def test_line_breaks_of_html_make_no_difference() -> None:
    raw = examples("raw", "Dull.<br /><br />Never again.")
    assert find_duplicates(normalised_texts(raw), examples("clean", "Dull. Never again.", "Dull.")) == ["clean/0"]


def test_policies() -> None:
    known = normalised_texts(TRAIN)
    warning = check_overlap(known, TEST, title="cr_dev", policy="warn")
    assert warning is not None
    assert warning.startswith("cr_dev: 3 of 6 reviews stand in the training set too (test/0, test/2, test/4)")
    assert check_overlap(known, TEST[-1:], title="cr_dev", policy="error") is None
    with pytest.raises(AfaError, match=r"cr_dev: 3 of 6 .*data\.duplicates_across=warn"):
        check_overlap(known, TEST, title="cr_dev", policy="error")


def sets(policy: str, validation: list[Example], **evaluation: list[Example]) -> list[str]:
    return check_sets(TRAIN, validation, evaluation, validation_title="validation: v", policy=policy)  # type: ignore[arg-type]


def test_validation_is_compared_with_training_and_with_every_evaluation_set() -> None:
    old, new = examples("old", "dull"), examples("new", "fresh", "fine")
    assert sets("warn", new, a=TEST[3:4], b=examples("b", "stale")) == []
    assert sets("warn", [*new, *old], a=examples("a", "stale")) == [
        "validation: v: 1 of 3 reviews stand in the training set too (old/0); the best step is chosen by what was "
        "trained on"
    ]
    assert sets("warn", new, a=examples("a", "stale"), b=examples("b", "stale", "Fresh!")) == [
        "b: 1 of 2 reviews stand in the validation set too (b/1); its scores are flattered where training.adapter=best "
        "chooses by them"
    ]
    three = sets("warn", old, a=old)
    assert [message.split(" (")[0] for message in three] == [
        "a: 1 of 1 reviews stand in the training set too",
        "validation: v: 1 of 1 reviews stand in the training set too",
        "a: 1 of 1 reviews stand in the validation set too",
    ]
    assert sets("ignore", old, a=old) == []
    with pytest.raises(
        AfaError, match=r"^validation: v: 1 of 1 .*training set.*; remove them, or set data\.duplicates_a"
    ):
        sets("error", old, a=new)
    with pytest.raises(AfaError, match=r"^a: 2 of 2 .*the validation set too.*data\.duplicates_across=warn"):
        sets("error", new, a=new)


def test_the_training_set_is_normalised_once_for_all_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("afa_llm.data.duplicates.normalised", lambda text: seen.append(text) or normalised(text))
    sets("warn", examples("new", "fresh"), **{name: examples(name, f"{name} stale") for name in "abcd"})
    assert [seen.count(example.text) for example in TRAIN] == [1] * len(TRAIN)
