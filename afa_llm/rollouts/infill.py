"""Other words for hidden ones, proposed by a model: what makes a masked view a review of its own (counterfactual view).

A causal model knows only what stands before a gap. So for each gap, from left to right:
1. `candidates` proposals are drawn, word by word, from p(word | prompt with the gaps before filled), each word of the
   kind of the hidden one (a space before it or none, letters or signs), never the hidden word itself;
2. each is weighed by p(what stands behind the gap | prompt, proposal), over `lookahead` tokens or to the next gap;
3. one is drawn with probability proportional to its weight.
This is sampling with importance resampling (Rubin 1987): the more candidates, the nearer to the model's own
p(words | both sides), which is what makes the view natural. With one candidate it is plain sampling from the left. Why
not the best candidate: it would give the same few likely words again and again. Why no prompt that asks to fill a gap:
only tuned models understand it, and its answers have no stated distribution.

Every draw has a seed of (seed, epoch, review, mask, gap, candidate, word, attempt), so the layout changes nothing. A
gap for which no candidate is found in a few attempts is left out (as in `delete`) and counted.

The work on one gap is a coroutine that yields what it wants to know; `side_by_side` puts the questions of all together.
Source: our choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from afa_llm.data.vocabulary import Vocabulary, WordKind
from afa_llm.records import Fillings, Gap, GappedPrompt
from afa_llm.rollouts.proposals import Continuation, Draw, Proposer

ATTEMPTS = 4  # draws of a word that may turn out to be none, or the hidden one spelled otherwise
PIECES = 6  # tokens of a word; what is longer is no word that a reader knows

Name = tuple[int, ...]
Question = Draw | Continuation
Reply = tuple[int, ...] | float
Result = TypeVar("Result")
Work = Generator[Sequence[Question], Sequence[Reply], Result]


@dataclass(frozen=True)
class Infiller:
    """Fills the gaps of prompts. `candidates`, `temperature`, `lookahead`: as in the configuration.

    `longest`: tokens of a filled prompt. No text is asked about that is longer: words that would make it so are drawn
    again, as if they were none.
    """

    proposer: Proposer
    vocabulary: Vocabulary
    candidates: int = 4
    temperature: float = 1.0
    lookahead: int = 16
    longest: int = 2**31

    def fill(self, prompts: Sequence[GappedPrompt], *, seed: int, epoch: int) -> list[Fillings]:
        """What stands in each gap of each prompt, in order; () where the words are left out."""
        return _carry_out(side_by_side([self._fill(prompt, (seed, epoch)) for prompt in prompts]), self.proposer)

    def _fill(self, prompt: GappedPrompt, name: Name) -> Work[Fillings]:
        found: list[tuple[int, ...]] = []
        text: tuple[int, ...] = ()
        at, length = 0, len(prompt.token_ids)
        for index, gap in enumerate(prompt.gaps):
            text += prompt.token_ids[at : gap.start]
            end = prompt.gaps[index + 1].start if index + 1 < len(prompt.gaps) else len(prompt.token_ids)
            behind = prompt.token_ids[gap.end : min(end, gap.end + self.lookahead)]
            length -= gap.end - gap.start
            room = self.longest - length
            filling = yield from self._fill_gap(text, gap, behind, room, (*name, *prompt.name, index))
            length += len(filling)
            found.append(filling)
            text, at = text + filling, gap.end
        return tuple(found)

    def _fill_gap(
        self, text: tuple[int, ...], gap: Gap, behind: tuple[int, ...], room: int, name: Name
    ) -> Work[tuple[int, ...]]:
        drawn = yield from side_by_side([self._draw_words(text, gap, room, (*name, c)) for c in range(self.candidates)])
        usable = [words for words in drawn if words]
        if len(set(usable)) < 2 or not behind:
            return usable[0] if usable else ()
        distinct = sorted(set(usable))
        scores = yield [Continuation(text + words, behind) for words in distinct]
        score_of = dict(zip(distinct, scores, strict=True))
        noise = np.random.Generator(np.random.Philox(key=seed_of((*name, -1)))).gumbel(size=len(usable))
        best = max(range(len(usable)), key=lambda i: score_of[usable[i]] + noise[i])
        return usable[best]

    def _draw_words(self, text: tuple[int, ...], gap: Gap, room: int, name: Name) -> Work[tuple[int, ...]]:
        """A word for each hidden one, of `room` tokens together; () where one could not be found."""
        words: tuple[int, ...] = ()
        for index, hidden in enumerate(gap.words):
            kind = self.vocabulary.kind(hidden)
            if kind is None or not text:
                return ()
            left = min(PIECES, room - len(words))
            word = yield from self._draw_word(text + words, hidden, kind, left, (*name, index))
            if not word:
                return ()
            words += word
        return words

    def _draw_word(
        self, text: tuple[int, ...], hidden: Sequence[int], kind: WordKind, room: int, name: Name
    ) -> Work[tuple[int, ...]]:
        """A word of `room` tokens at most. One token more than fits is drawn: it tells a word from its beginning."""
        if room < 1:
            return ()
        starts, inner = self.vocabulary.starts(kind), self.vocabulary.inner
        for attempt in range(ATTEMPTS):
            seed = seed_of((*name, attempt))
            (begun,) = yield [Draw(text, seed, 1, self.temperature, starts, hidden[0])]
            assert isinstance(begun, tuple)
            if not begun:
                return ()
            (more,) = yield [Draw(text + begun, seed ^ 1, room, self.temperature, within=inner)]
            assert isinstance(more, tuple)
            word = begun + more[: self._goes_on(begun, more, kind)]
            if len(word) <= room and not self.vocabulary.same_word(word, hidden):
                return word
        return ()

    def _goes_on(self, begun: tuple[int, ...], more: tuple[int, ...], kind: WordKind) -> int:
        """How many of the tokens drawn after a word's first one still belong to it."""
        for count in range(len(more)):
            if not self.vocabulary.is_word(begun + more[: count + 1], kind):
                return count
        return len(more)


def side_by_side(works: Sequence[Work[Result]]) -> Work[list[Result]]:
    """Several works as one: what they want to know next is asked together."""
    results: dict[int, Result] = {}
    waiting: dict[int, Sequence[Question]] = {}

    def go_on(index: int, replies: Sequence[Reply] | None) -> None:
        try:
            waiting[index] = works[index].send(replies)  # type: ignore[arg-type]  # None starts it
        except StopIteration as done:
            waiting.pop(index, None)
            results[index] = done.value

    for index in range(len(works)):
        go_on(index, None)
    while waiting:
        asked = dict(waiting)
        replies = yield [question for questions in asked.values() for question in questions]
        at = 0
        for index, questions in asked.items():
            go_on(index, replies[at : at + len(questions)])
            at += len(questions)
    return [results[index] for index in range(len(works))]


def _carry_out(work: Work[Result], proposer: Proposer) -> Result:
    """Answer what a work asks, all draws in one call and all scores in one, until it is done."""
    replies: Sequence[Reply] | None = None
    while True:
        try:
            questions = work.send(replies)  # type: ignore[arg-type]
        except StopIteration as done:
            return done.value
        drawn = iter(proposer.draw([q for q in questions if isinstance(q, Draw)]))
        scored = iter(proposer.score([q for q in questions if isinstance(q, Continuation)]))
        replies = [next(drawn) if isinstance(q, Draw) else next(scored) for q in questions]


def seed_of(name: Name) -> int:
    """An even 63-bit seed of a name, the same in every process (BLAKE2b)."""
    digest = hashlib.blake2b(repr(name).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2 << 1
