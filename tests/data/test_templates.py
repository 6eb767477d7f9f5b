from pathlib import Path

import pytest

from afa_llm.data.templates import load_templates
from afa_llm.errors import AfaError

LABELS = ("negative", "positive")
GOOD = """
templates:
  plain:
    prompt: "Json {braces} {{x}} {review}\\nSo:"
    answers: {positive: " yes", negative: " no"}
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "prompts.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_builtin_templates() -> None:
    names = ["review_sentiment", "overall_it_was", "is_this_review", "in_one_word"]
    templates = load_templates("builtin:sentiment", names, LABELS)
    assert list(templates) == names
    review = templates["review_sentiment"]
    assert (review.before, review.after, review.answers) == ("Review: ", "\nSentiment:", (" negative", " positive"))
    assert (templates["overall_it_was"].after, templates["overall_it_was"].answers) == (
        "\nOverall, it was",
        (" terrible", " great"),
    )
    for template in templates.values():
        assert template.chat is not None
        assert all(not answer.startswith(" ") for answer in template.chat.answers)
        assert all(answer.startswith(" ") for answer in template.answers)
    three = load_templates("builtin:sentiment_three", names, ("negative", "neutral", "positive"))
    assert [len(template.answers) for template in three.values()] == [3, 3, 3, 3]


@pytest.mark.parametrize(("labels", "way_out"), [
    (("positive", "neutral", "negative"), "set prompts.file=builtin:sentiment_three"),
    (("bad", "good"), r"name a file with answers for bad, good in prompts\.file"),
    (("negative", "good"), r"name a file with answers for negative, good in prompts\.file"),
])  # fmt: skip
def test_labels_that_the_packaged_templates_have_no_answers_for(labels: tuple[str, ...], way_out: str) -> None:
    """Nobody can add an answer to a file of the package."""
    with pytest.raises(AfaError, match=rf"builtin:sentiment has answers for negative, positive alone; {way_out}"):
        load_templates("builtin:sentiment", ["review_sentiment"], labels)


def test_answers_follow_the_order_of_the_labels_and_braces_stay(tmp_path: Path) -> None:
    template = load_templates(write(tmp_path, GOOD), ["plain", "plain"], ("positive", "negative"))["plain"]
    assert template.answers == (" yes", " no")
    assert (template.before, template.after) == ("Json {braces} {{x}} ", "\nSo:")
    assert template.chat is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{review}", "review", r"plain, prompt: has {review} 0 times"),
        ("{review}", "{review} {review}", r"has {review} 2 times"),
        ('negative: " no"', 'neutral: " no"', r"'neutral' is no label of data.labels \(negative, positive\)"),
        (', negative: " no"', "", "no answer for label 'negative'"),
        ('negative: " no"', "negative: false", r"negative: False is no text; write the answer in quotes"),
        ('negative: " no"', 'false: " no"', "False is no label .* quote it"),
        ('negative: " no"', 'no: " no"', "'no' is no label"),
        (
            ', negative: " no"',
            ', negative: " no", negative: " nope"',
            "line 5: not valid YAML: 'negative' stands twice",
        ),
        ("  plain:", "  plain: {}\n  plain:", "line 4: not valid YAML: 'plain' stands twice"),
        ("prompt:", "prompt: !!int x #", "'x' cannot be read as int"),
        ('negative: " no"', 'negative: " "', "negative: ' ' is no text"),
        ('negative: " no"', 'negative: "yes "', "'negative' and 'positive' both answer ' yes'"),
        ("prompt:", "promt:", "template plain: prompt is missing"),
        ("    answers:", "    system: x\n    answers:", "unknown key 'system'; there are answers, chat, prompt"),
        ("plain:", "other:", "no template 'plain'; there are other"),
        ("templates:", "template:", "templates is missing"),
        ('"Json', '["Json', "line .: not valid YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(AfaError, match=message):
        load_templates(write(tmp_path, GOOD.replace(old, new)), ["plain"], LABELS)


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ("{user: 'Hi', answers: {positive: y, negative: n}}", r"chat, user: has {review} 0 times"),
        ("{system: '{review}', user: '{review}', answers: {}}", "the review belongs into user"),
        ("{user: '{review}', answers: {positive: a}}", "chat, answers: no answer for label 'negative'"),
        ("{user: '{review}'}", "chat: answers is missing"),
        ("text", "chat: a str, not a mapping"),
    ],
)
def test_wrong_chat_parts(tmp_path: Path, chat: str, message: str) -> None:
    with pytest.raises(AfaError, match=message):
        load_templates(write(tmp_path, GOOD + f"    chat: {chat}\n"), ["plain"], LABELS)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(AfaError, match=r"no such file; set prompts\.file"):
        load_templates(str(tmp_path / "gone.yaml"), ["plain"], LABELS)
    with pytest.raises(AfaError, match="cannot be read"):
        load_templates(str(tmp_path), ["plain"], LABELS)
    with pytest.raises(AfaError, match=r"no such builtin; there are builtin:sentiment, "):
        load_templates("builtin:sentimnt", ["plain"], LABELS)
    with pytest.raises(AfaError, match="did you mean 'in_one_word'"):
        load_templates("builtin:sentiment", ["in_one_wrd"], LABELS)
    with pytest.raises(AfaError, match="a NoneType, not a mapping"):
        load_templates(write(tmp_path, ""), ["plain"], LABELS)
