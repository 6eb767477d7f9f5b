"""Reviews in their template, as token ids with the word that each token belongs to.

The whole rendered text is tokenised once and words are found by offsets, so that the ids are those the model would get
from the text. Review text never becomes a control token: where the tokenizer would read one, the review is refused.

Legend: T tokens of a prompt, W words of a review.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from afa_llm.config_data import Prompts
from afa_llm.data.answers import answer_words
from afa_llm.data.chat import ChatFrame
from afa_llm.data.demonstrations import SEPARATOR
from afa_llm.data.quarantine import Quarantine
from afa_llm.data.templates import Template, load_templates
from afa_llm.errors import AfaError
from afa_llm.records import AnswerWords, Example, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class UnusableReviewError(AfaError):
    """A review that can't stand in this prompt; `kind` is the reason without its particulars."""

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class _Tokens:
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]


class PromptBuilder:
    """Builds prompts of one template for one tokenizer, raw or in its chat template.

    `chat`: never; auto, where both the tokenizer has a chat template and the template a chat part; always, or AfaError.
    `demonstrations`: answered reviews before the one that is asked about, part of the template; they must be reviews
    that a builder without them can build.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        labels: Sequence[str],
        chat: Literal["auto", "always", "never"] = "auto",
        demonstrations: Sequence[Example] = (),
    ) -> None:
        """Raises AfaError: slow tokenizer, no chat template where one is demanded, a chat template that drops or
        alters the review, answers that collide or change the tokens of the prompt."""
        if not getattr(tokenizer, "is_fast", False):
            raise AfaError(
                f"{type(tokenizer).__name__}: a slow tokenizer gives no offsets, by which words are found; "
                "install the model's fast tokenizer (tokenizer.json)"
            )
        self.tokenizer, self.template = tokenizer, template
        self._frame = _chat_frame(tokenizer, template, chat, demonstrations)
        self.before = self._frame.before if self._frame else _shown(template, demonstrations) + template.before
        self.after = self._frame.after if self._frame else template.after
        if not self.after.strip():
            raise AfaError(
                f"template {template.name!r}: the prompt ends with the review; write text after {{review}}, "
                "for the answer is read at the last token, which must not be the review's own"
            )
        # In a raw prompt without control tokens of its own, none may be read at all; "</s>" is then plain text.
        self._literal = not self._frame and not self._controls_in(self.before + self.after)
        self._control_ids = self._all_control_ids()
        answers = template.chat.answers if self._frame and template.chat else template.answers
        self.answer_words: AnswerWords = answer_words(
            template.name, labels, answers, self._ids, self.before, self.after, tokenizer.unk_token_id
        )

    @property
    def is_chat(self) -> bool:
        return self._frame is not None

    def build(self, example: Example) -> Prompt:
        """The prompt of a review. Raises UnusableReviewError: no UTF-8, no words, control tokens, altered by chat."""
        if example.text.encode(errors="ignore").decode() != example.text:  # bytes typed in another encoding
            raise UnusableReviewError("the text holds bytes that are no UTF-8", "text is no Unicode")
        if not example.words:
            raise UnusableReviewError("the review has no words", "review without words")
        if self._frame and not self._frame.keeps(example.text):
            raise UnusableReviewError(
                "the tokenizer's chat template alters the review's text; set prompts.chat=never",
                "altered by the chat template",
            )
        tokens = self._tokenise(self.before + example.text + self.after)
        self._refuse_control_tokens(tokens, example.text)
        word_of_token = self._words_of(tokens, example)
        if max(word_of_token) < 0:
            raise UnusableReviewError("no token belongs to a word of the review", "review without words")
        return Prompt(example, tokens.ids, _without_sink(word_of_token))

    def build_unchecked(self, example: Example) -> Prompt:
        """As `build`, for texts of our own: words may be empty, nothing is refused."""
        tokens = self._tokenise(self.before + example.text + self.after)
        return Prompt(example, tokens.ids, _without_sink(self._words_of(tokens, example)))

    def _words_of(self, tokens: _Tokens, example: Example) -> tuple[int, ...]:
        """The last token belongs to no word, even where a tokenizer joins the review's "!" and the template's in "!!":
        a mask would hide or delete the position where the answer is read."""
        return (*words_of_tokens(tokens.spans, example.words, len(self.before))[:-1], -1)

    def _encode(self, text: str, literal: bool) -> Any:
        return self.tokenizer(
            text,
            add_special_tokens=self._frame is None,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            split_special_tokens=literal,
            truncation=False,
            padding=False,
            verbose=False,
        )

    def _tokenise(self, text: str) -> _Tokens:
        encoding = self._encode(text, self._literal)
        end = len(encoding["input_ids"])
        while end and encoding["special_tokens_mask"][end - 1]:  # EOS or SEP that the tokenizer appends
            end -= 1
        return _Tokens(tuple(encoding["input_ids"][:end]), tuple(encoding["offset_mapping"][:end]))

    def _ids(self, text: str) -> tuple[int, ...]:
        return self._tokenise(text).ids

    def _controls_in(self, text: str) -> set[int]:
        """Ids of the added tokens that stand literally in a text of ours."""
        encoding = self._encode(text, literal=False)
        added = self.tokenizer.added_tokens_decoder
        spans = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        return {
            token
            for token, (start, end) in spans
            if token in added and text[start:end].strip() == str(added[token]).strip() != ""
        }

    def _all_control_ids(self) -> set[int]:
        """Special tokens, and whatever added tokens the chat template itself uses."""
        special = {index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return special | set(self.tokenizer.all_special_ids) | self._controls_in(self.before + self.after)

    def _refuse_control_tokens(self, tokens: _Tokens, review: str) -> None:
        first, last = len(self.before), len(self.before) + len(review)
        text = self.before + review + self.after
        for token, (start, end) in zip(tokens.ids, tokens.spans, strict=True):
            inside = start < last and end > first
            # An unknown character gives the unknown token too: only its spelled-out form counts.
            if (
                inside
                and token in self._control_ids
                and text[start:end].strip() == self.tokenizer.convert_ids_to_tokens(token)
            ):
                raise UnusableReviewError(
                    f"the review contains {text[start:end].strip()!r}, a control token of this tokenizer",
                    "control token in the review",
                )


def words_of_tokens(
    token_spans: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]], offset: int
) -> tuple[int, ...]:
    """For each token the word it shares most characters with (the first of equals), else -1.

    `token_spans` are in the rendered text, `words` in the review, which begins at `offset` there.
    """
    found, first = [], 0
    for start, end in token_spans:
        start, end = start - offset, end - offset
        while first < len(words) and words[first][1] <= start:
            first += 1
        best, most, word = -1, 0, first
        while word < len(words) and words[word][0] < end:
            shared = min(end, words[word][1]) - max(start, words[word][0])
            if shared > most:
                best, most = word, shared
            word += 1
        found.append(best)
    return tuple(found)


def _without_sink(word_of_token: tuple[int, ...]) -> tuple[int, ...]:
    """The first token of a prompt belongs to no word: it is the attention sink, whatever it says.

    Where nothing stands before the review, neither text nor BOS, the review's first word would else have 59 to 70 % of
    the focus (SmolLM2 on planted reviews; 3 to 5 % with a token before it). A review of this one token keeps it: its
    focus is 1 in any case.
    """
    others = (-1, *word_of_token[1:])
    return others if max(others) >= 0 else word_of_token


def _shown(template: Template, demonstrations: Sequence[Example]) -> str:
    """The demonstrations as they stand before a raw prompt."""
    parts = (template.before + e.text + template.after + template.answers[e.label] for e in demonstrations)
    return "".join(part + SEPARATOR for part in parts)


def _chat_frame(
    tokenizer: PreTrainedTokenizerBase, template: Template, chat: str, demonstrations: Sequence[Example]
) -> ChatFrame | None:
    if chat == "never":
        return None
    if chat == "always" and not tokenizer.chat_template:
        raise AfaError("prompts.chat = always: the tokenizer has no chat template; set prompts.chat=never")
    if chat == "always" and template.chat is None:
        raise AfaError(f"prompts.chat = always: template {template.name!r} has no chat part; add one or set chat=auto")
    if not tokenizer.chat_template or template.chat is None:
        return None
    turns = [(example.text, template.chat.answers[example.label]) for example in demonstrations]
    return ChatFrame(tokenizer, template.chat, template.name, turns)


def build_prompts(
    examples: Iterable[Example],
    builder: PromptBuilder,
    *,
    max_tokens: int,
    too_long: Literal["quarantine", "truncate"],
    quarantine: Quarantine,
) -> list[Prompt]:
    """Prompts of at most `max_tokens` tokens; reviews that can't be used go to quarantine under their id.

    `truncate` cuts the last words of a longer review, never the template, and counts it in the notes.
    """
    prompts = []
    for example in examples:
        try:
            prompt = builder.build(example)
            if len(prompt.token_ids) > max_tokens:
                prompt = _shorten(prompt, builder, max_tokens, too_long)
                quarantine.note("review truncated to data.max_tokens", example.example_id)
            prompts.append(prompt)
        except UnusableReviewError as error:
            quarantine.add(example.example_id, None, str(error), example.text, kind=error.kind)
    return prompts


def _shorten(prompt: Prompt, builder: PromptBuilder, max_tokens: int, too_long: str) -> Prompt:
    """The prompt with the last words of its review cut until it fits."""
    if too_long == "quarantine":
        length = len(prompt.token_ids)
        reason = f"{length} tokens, over data.max_tokens = {max_tokens}; raise it, or set data.too_long=truncate"
        raise UnusableReviewError(reason, f"longer than data.max_tokens = {max_tokens}")
    return _cut(prompt, builder.build, max_tokens)


def _cut(prompt: Prompt, build: Callable[[Example], Prompt], max_tokens: int) -> Prompt:
    while len(prompt.token_ids) > max_tokens:
        kept = _words_that_fit(prompt, max_tokens)
        if kept < 1:
            reason = f"template and first word alone are over data.max_tokens = {max_tokens}; raise it"
            raise UnusableReviewError(reason, f"template longer than data.max_tokens = {max_tokens}")
        prompt = build(_first_words(prompt.example, kept))
    return prompt


def _words_that_fit(prompt: Prompt, max_tokens: int) -> int:
    """How many first words remain when the surplus tokens are cut from the end; at least one word is cut.

    Tokens between words go with the words that they stand before: blanks, and IMDB's <br />, which is six of them.
    """
    words = prompt.word_of_token
    last = max((at for at, word in enumerate(words) if word >= 0), default=-1)
    surplus = len(words) - max_tokens
    cut = [word for word in words[max(0, last + 1 - surplus) : last + 1] if word >= 0]
    return min([*cut, len(prompt.example.words) - 1])


def _first_words(example: Example, count: int) -> Example:
    words = example.words[:count]
    rationale = example.rationale[:count] if example.rationale is not None else None
    return replace(example, text=example.text[: words[-1][1]], words=words, rationale=rationale)


def text_of_ours(builder: PromptBuilder, example: Example, max_tokens: int) -> Prompt:
    """A prompt of words of our own choice, its last ones cut where it is too long; its label means nothing."""
    return _cut(builder.build_unchecked(example), builder.build_unchecked, max_tokens)


def longest_answers(settings: Prompts, labels: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> AnswerWords:
    """Those of the template with the longest answer in tokens. Raises AfaError for templates that can't be used."""
    templates = load_templates(settings.file, [settings.train, *settings.evaluation], labels)
    found = [PromptBuilder(tokenizer, each, labels, settings.chat).answer_words for each in templates.values()]
    return max(found, key=lambda answers: max(map(len, answers.token_ids)))
