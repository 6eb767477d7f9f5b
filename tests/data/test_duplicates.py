import pytest

from afa_llm.data.duplicates import check_overlap, find_duplicates
from afa_llm.errors import AfaError
from afa_llm.records import Example


def examples(name: str, *texts: str) -> list[Example]:
    return [Example(f"{name}/{k}", text, 0, ()) for k, text in enumerate(texts)]


TRAIN = examples("train", "It's a lovely film.", "Dull", "👍 👍", "ﬁne café １")
TEST = examples("test", "it 's a LOVELY film !", "dully", "👍👍", "👎", "Fine cafe\u0301 1", "new")


def test_spacing_case_and_signs_make_no_difference() -> None:
    assert find_duplicates(TRAIN, TEST) == ["test/0", "test/2", "test/4"]


def test_policies() -> None:
    warning = check_overlap(TRAIN, TEST, title="cr_dev", policy="warn")
    assert warning is not None
    assert warning.startswith("cr_dev: 3 of 6 reviews stand in the training set too (test/0, test/2, test/4)")
    assert check_overlap(TRAIN, TEST, title="cr_dev", policy="ignore") is None
    assert check_overlap(TRAIN, TEST[-1:], title="cr_dev", policy="error") is None
    with pytest.raises(AfaError, match=r"cr_dev: 3 of 6 .*data\.duplicates_across=warn"):
        check_overlap(TRAIN, iter(TEST), title="cr_dev", policy="error")
