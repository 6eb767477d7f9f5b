"""What a tokenizer's chat template puts before and after the review."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from afa_llm.data.templates import ChatTemplate
from afa_llm.errors import AfaError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTINEL = "Qreviewslotq7"  # letters and a digit: nothing a template would strip, split or escape
TODAY = datetime(2024, 7, 26)
"""The day that chat templates are told it is, the one that Llama 3.1 falls back to. Families tell their model the date
(Llama 3.2, Granite 3, SmolLM3): by the clock a run would train on other prompts each day, and not go on after one."""


class ChatFrame:
    """The rendered text around the review: `before` + review + `after`.

    The answer is read at the first token after it, where families that reason (Qwen3, SmolLM3) would begin a thought:
    templates that can are asked for an answer without one.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat: ChatTemplate,
        name: str,
        demonstrations: Sequence[tuple[str, str]] = (),
    ) -> None:
        """`demonstrations`: (review, answer), earlier turns of the talk.

        Raises AfaError where the chat template fails, or doesn't show the review's place exactly once.
        """
        self._tokenizer, self._chat, self._name = tokenizer, chat, name
        self._demonstrations, self._fold_system = demonstrations, False
        rendered = self._first_render()
        if rendered.count(SENTINEL) != 1:
            raise AfaError(
                f"template {name!r}: the tokenizer's chat template shows the review {rendered.count(SENTINEL)} times; "
                "set prompts.chat=never"
            )
        self.before, self.after = rendered.split(SENTINEL)

    def keeps(self, review: str) -> bool:
        """Whether the chat template leaves this review as it is."""
        return self._render(review) == self.before + review + self.after

    def _first_render(self) -> str:
        """Templates without a system role refuse one (Gemma) or leave it out without a word (the first ones of Phi-3):
        it then goes on top of the user's message."""
        try:
            rendered = self._render(SENTINEL)
            if self._chat.system.strip() in rendered:
                return rendered
        except AfaError:
            if not self._chat.system:
                raise
        self._fold_system = True
        return self._render(SENTINEL)

    def _render(self, review: str) -> str:
        messages = []
        for text, answer in (*self._demonstrations, (review, "")):
            messages.append({"role": "user", "content": self._chat.before + text + self._chat.after})
            messages.append({"role": "assistant", "content": answer})
        messages.pop()  # the answer asked for
        if self._fold_system:
            messages[0]["content"] = f"{self._chat.system}\n\n{messages[0]['content']}"
        elif self._chat.system:
            messages = [{"role": "system", "content": self._chat.system}, *messages]
        asked: dict[str, Any] = {
            "add_generation_prompt": True,
            "enable_thinking": False,
            "strftime_now": TODAY.strftime,
        }
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, **asked))
        except Exception as error:  # it is a program: it may divide by zero
            raise AfaError(
                f"template {self._name!r}: the tokenizer's chat template fails: {error}; set prompts.chat=never"
            ) from None
