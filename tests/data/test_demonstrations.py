"""Few-shot prompts: balanced, drawn by seed, in front of the review, and never eligible."""

from __future__ import annotations

from collections import Counter

import pytest
from test_prompts import LABELS, TEMPLATE, example
from transformers import PreTrainedTokenizerFast

from afa_llm.data.demonstrations import draw_demonstrations
from afa_llm.data.prompts import PromptBuilder
from afa_llm.data.words import split_words
from afa_llm.errors import AfaError
from afa_llm.records import Example


def reviews(count: int) -> list[Example]:
    texts = [f"word {'more ' * (k % 7)}end" for k in range(count)]
    return [Example(f"r/{k}", text, k % 2, split_words(text)) for k, text in enumerate(texts)]


@pytest.mark.parametrize(("count", "shares"), [(4, [2, 2]), (5, [2, 3]), (1, [1])])
def test_labels_are_balanced_and_the_draw_is_the_seeds(count: int, shares: list[int]) -> None:
    drawn = [draw_demonstrations(reviews(200), LABELS, count=count, longest=60, seed=seed) for seed in (0, 0, 1)]
    assert sorted(Counter(e.label for e in drawn[0]).values()) == shares
    assert len({e.example_id for e in drawn[0]}) == count
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_long_reviews_are_not_drawn() -> None:
    for seed in range(20):
        drawn = draw_demonstrations(reviews(200), LABELS, count=6, longest=4, seed=seed)
        assert all(len(e.words) <= 4 for e in drawn)
    with pytest.raises(AfaError, match=r"needs 2 training reviews labelled '(neg|pos)itive' of at most 1 words"):
        draw_demonstrations(reviews(200), LABELS, count=4, longest=1, seed=0)


def test_the_prompt_shows_them_and_only_the_review_is_eligible(raw_tokenizer: PreTrainedTokenizerFast) -> None:
    shown = [example("a dull film"), Example("n", "a great film", 1, split_words("a great film"))]
    prompt = PromptBuilder(raw_tokenizer, TEMPLATE, LABELS, demonstrations=shown).build(example("a fine film"))
    text = raw_tokenizer.decode(prompt.token_ids)
    answers = TEMPLATE.answers
    assert text == (
        f"<s>Review: a dull film\nSentiment:{answers[1]}\n\nReview: a great film\nSentiment:{answers[1]}\n\n"
        "Review: a fine film\nSentiment:"
    )
    eligible = [i for i, word in zip(prompt.token_ids, prompt.word_of_token, strict=True) if word >= 0]
    assert raw_tokenizer.decode(eligible).split() == ["a", "fine", "film"]


def test_in_chat_they_are_earlier_turns(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    assert TEMPLATE.chat is not None
    one = Example("n", "a dull film", 0, split_words("a dull film"))
    plain = PromptBuilder(chat_tokenizer, TEMPLATE, LABELS)
    shown = PromptBuilder(chat_tokenizer, TEMPLATE, LABELS, demonstrations=[one])
    turns = [
        {"role": "system", "content": TEMPLATE.chat.system},
        {"role": "user", "content": "Review: a dull film\nSentiment:"},
        {"role": "assistant", "content": "negative"},
        {"role": "user", "content": "Review: fine\nSentiment:"},
    ]
    expected = chat_tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert shown.before + "fine" + shown.after == expected
    assert shown.answer_words == plain.answer_words
