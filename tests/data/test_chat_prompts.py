"""Prompts by a tokenizer's chat template: when it is used, what stands where, templates that cannot be used."""

from __future__ import annotations

import dataclasses

import pytest
from prompt_examples import LABELS, TEMPLATE, TEXTS, example, spelled
from transformers import PreTrainedTokenizerFast

from afa_llm.data.prompts import PromptBuilder, UnusableReviewError
from afa_llm.data.templates import ChatTemplate
from afa_llm.errors import AfaError


def test_added_tokens_that_a_chat_template_uses_are_control_tokens_too(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    chat_tokenizer.add_tokens(["<think>", "<h1>"])
    chat_tokenizer.chat_template += "<think>"
    builder = PromptBuilder(chat_tokenizer, TEMPLATE, LABELS)
    assert builder.build(example("a <h1> b"))
    with pytest.raises(UnusableReviewError, match="'<think>', a control token"):
        builder.build(example("I <think> so"))


def test_chat_prompts_hold_the_review_in_the_users_message(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    builder = PromptBuilder(chat_tokenizer, TEMPLATE, LABELS)
    assert builder.is_chat
    for text in TEXTS:
        prompt = builder.build(example(text))
        assert spelled(prompt, chat_tokenizer) == [word.strip() for word in prompt.words]
        assert TEMPLATE.chat is not None
        assert chat_tokenizer.decode(prompt.token_ids) == (
            f"<|im_start|>system\n{TEMPLATE.chat.system}<|im_end|>\n"
            f"<|im_start|>user\nReview: {text}\nSentiment:<|im_end|>\n<|im_start|>assistant\n"
        )
    start = chat_tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert prompt.token_ids.count(start) == 3
    assert "".join(chat_tokenizer.decode(ids) for ids in builder.answer_words.token_ids) == "negativepositive"


def test_when_the_chat_template_is_used(
    raw_tokenizer: PreTrainedTokenizerFast, chat_tokenizer: PreTrainedTokenizerFast
) -> None:
    no_chat_part = dataclasses.replace(TEMPLATE, chat=None)
    assert not PromptBuilder(raw_tokenizer, TEMPLATE, LABELS, "auto").is_chat
    assert not PromptBuilder(chat_tokenizer, TEMPLATE, LABELS, "never").is_chat
    assert not PromptBuilder(chat_tokenizer, no_chat_part, LABELS, "auto").is_chat
    assert PromptBuilder(chat_tokenizer, TEMPLATE, LABELS, "always").is_chat
    with pytest.raises(AfaError, match="the tokenizer has no chat template"):
        PromptBuilder(raw_tokenizer, TEMPLATE, LABELS, "always")
    with pytest.raises(AfaError, match="template 'review_sentiment' has no chat part"):
        PromptBuilder(chat_tokenizer, no_chat_part, LABELS, "always")


def test_a_chat_template_without_a_system_role(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    refuse = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    chat_tokenizer.chat_template = refuse + chat_tokenizer.chat_template
    prompt = PromptBuilder(chat_tokenizer, TEMPLATE, LABELS).build(example("fine"))
    assert "<|im_start|>user\nYou classify" in chat_tokenizer.decode(prompt.token_ids)


def test_a_chat_template_that_leaves_the_system_role_out(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    """As Phi-3's first ones do, without a word: what the model shall answer stood nowhere then."""
    chat_tokenizer.chat_template = chat_tokenizer.chat_template.replace(
        "for message in messages", "for message in messages if message.role != 'system'"
    )
    prompt = PromptBuilder(chat_tokenizer, TEMPLATE, LABELS).build(example("fine"))
    assert chat_tokenizer.decode(prompt.token_ids).startswith("<|im_start|>user\nYou classify")


def test_a_family_that_reasons_is_asked_for_its_answer_at_once(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    """Qwen3's way to say it: else the token after the prompt is the beginning of a thought, not the label's."""
    closed = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    chat_tokenizer.chat_template += closed
    prompt = PromptBuilder(chat_tokenizer, TEMPLATE, LABELS).build(example("fine"))
    assert chat_tokenizer.decode(prompt.token_ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_chat_template_that_tells_the_date_gives_the_same_prompts_on_any_day(
    chat_tokenizer: PreTrainedTokenizerFast,
) -> None:
    """The format counts microseconds: by the clock no two renderings would be alike."""
    chat_tokenizer.chat_template = "Today: {{ strftime_now('%d %b %Y %f') }}\n" + chat_tokenizer.chat_template
    first, second = (PromptBuilder(chat_tokenizer, TEMPLATE, LABELS).build(example("fine")) for _ in range(2))
    assert first == second
    assert chat_tokenizer.decode(first.token_ids).startswith("Today: 26 Jul 2024 000000\n<|im_start|>system")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("message.content }}", "message.content | lower }}", "shows the review 0 times"),
        ("message.content }}", "message.content }}{{ message.content }}", "shows the review 2 times"),
        ("message.content }}", "message.contents() }}", "chat template fails"),
    ],
)
def test_chat_templates_that_cannot_be_used(
    chat_tokenizer: PreTrainedTokenizerFast, old: str, new: str, message: str
) -> None:
    chat_tokenizer.chat_template = chat_tokenizer.chat_template.replace(old, new)
    with pytest.raises(AfaError, match=message):
        PromptBuilder(chat_tokenizer, TEMPLATE, LABELS)


def test_a_chat_template_that_breaks_in_its_own_way(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    chat_tokenizer.chat_template = "{{ 1 / 0 }}"
    with pytest.raises(AfaError, match=r"chat template fails: division by zero; set prompts.chat=never"):
        PromptBuilder(chat_tokenizer, TEMPLATE, LABELS)


def test_a_chat_template_that_alters_some_reviews_is_noticed(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    chat_tokenizer.chat_template = chat_tokenizer.chat_template.replace("content }}", "content | replace('<b>', '') }}")
    builder = PromptBuilder(chat_tokenizer, TEMPLATE, LABELS)
    assert builder.build(example("bold"))
    with pytest.raises(UnusableReviewError, match="alters the review"):
        builder.build(example("<b>bold"))


def test_chat_answers_belong_to_the_chat_part(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    chat = ChatTemplate("", "", "", ("bad", "good"))
    builder = PromptBuilder(chat_tokenizer, dataclasses.replace(TEMPLATE, chat=chat), LABELS)
    assert [chat_tokenizer.decode(ids) for ids in builder.answer_words.token_ids] == ["bad", "good"]
