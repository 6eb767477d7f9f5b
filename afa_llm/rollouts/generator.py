"""The door between whoever asks prompts and whoever answers them.

A generator takes token ids and gives the log-probability of each label's answer at the readout position, with the
version of the adapter that answered. Token ids in, token ids out: text is never tokenised a second time.

Legend: N prompts, C labels, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from afa_llm.errors import AfaError, EnginesFailedError, StoppedError
from afa_llm.records import Answers, AnswerWords, DecoderReading, View


class Generator(Protocol):
    """Answers prompts. Clean and masked prompts of one comparison must go to the same generator and version."""

    def answer(self, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> Answers:
        """Log-probabilities [N, C] of each label's answer, on the CPU in float32, in the order of the prompts."""
        ...


class Asked(Protocol):
    """Answers on their way."""

    def result(self) -> Answers:
        """Waits for them. Called once on every rank of a team, in the order of the asking."""
        ...


class AskableGenerator(Generator, Protocol):
    """A generator that answers while the one who asked goes on."""

    def ask(self, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> Asked: ...

    def rest(self) -> None:
        """Nothing will be asked until the trainer's step is over: shared memory can be given back."""
        ...


@dataclass(frozen=True)
class Answered:
    """Answers that are there already."""

    answers: Answers

    def result(self) -> Answers:
        return self.answers


class Team(Protocol):
    """Ranks that share work."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gather(self, item: Any) -> list[Any]: ...

    def heed(self) -> None:
        """Called before each pass. Raises StoppedError where this process was asked to stop."""
        ...

    def beat(self) -> None:
        """Called while this rank waits for an engine: it lives. Never a word to other ranks, unlike `heed`.

        Raises StoppedError where this process was asked to stop.
        """
        ...


@dataclass(frozen=True)
class Alone:
    """A team of one."""

    rank: int = 0
    size: int = 1

    def gather(self, item: Any) -> list[Any]:
        return [item]

    def heed(self) -> None:
        pass

    def beat(self) -> None:
        pass


ALONE = Alone()
Item = TypeVar("Item")
Given = TypeVar("Given")


def shared(team: Team, asked: Sequence[Item], answer: Callable[[Sequence[Item]], Sequence[Given]]) -> list[Given]:
    """Answers to everything asked, on every rank, each having done its share.

    Shares are equally long (the first item fills up): under ZeRO-3 all ranks must make the same number of passes.
    Raises StoppedError on all ranks where one of them was asked to stop.
    """
    if not asked:
        return []
    mine = list(asked[team.rank :: team.size])
    longest = -(-len(asked) // team.size)
    mine += [asked[0]] * (longest - len(mine))
    part: list[Given] | StoppedError
    try:
        part = list(answer(mine))
    except StoppedError as stopped:
        part = stopped  # the others wait for this share
    parts = team.gather(part)
    for given in parts:
        if isinstance(given, StoppedError):
            raise given
    return [parts[i % team.size][i // team.size] for i in range(len(asked))]


def known_to_all(error: AfaError) -> AfaError:
    """What every rank is to raise at one place, of a rank's own error while it asked its engines."""
    if isinstance(error, StoppedError):
        return error
    failed = EnginesFailedError(str(error))
    failed.__cause__ = error
    return failed


class Reader(Protocol):
    """What a generator needs of a decoder."""

    pad_token_id: int

    @property
    def device(self) -> torch.device: ...

    def read(self, view: View, answers: AnswerWords, *, vocabulary: bool = False) -> DecoderReading: ...

    def answering(self) -> AbstractContextManager[None]: ...


class TransformersGenerator:
    """The decoder in this process, base or with its adapter.

    A pass takes `batch_size` prompts of like length; the ranks of a team share the prompts.
    """

    def __init__(self, decoder: Reader, batch_size: int, team: Team = ALONE) -> None:
        self.decoder, self.batch_size, self.team = decoder, batch_size, team
        self.adapter_version = 0

    def answer(self, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> Answers:
        """As in `Generator`. Raises ValueError for a prompt without tokens: it has no readout position."""
        empty = [index for index, prompt in enumerate(prompts) if not len(prompt)]
        if empty:
            raise ValueError(f"prompt {empty[0]} of {len(prompts)} has no tokens")
        rows = shared(self.team, prompts, lambda mine: list(self._answer(mine, answers)))
        logprob_NC = torch.stack(rows) if rows else torch.zeros(0, len(answers.labels))
        return Answers(logprob_NC, self.adapter_version)

    def _answer(self, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> torch.Tensor:
        logprob_NC = torch.zeros(len(prompts), len(answers.labels))
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        with self.decoder.answering():
            for start in range(0, len(order), self.batch_size):
                self.team.heed()
                chosen = order[start : start + self.batch_size]
                view = view_of([prompts[i] for i in chosen], self.decoder.pad_token_id, self.decoder.device)
                logprob_NC[chosen] = self.decoder.read(view, answers).label_logprob_BC.float().cpu()
        return logprob_NC


def view_of(prompts: Sequence[Sequence[int]], pad_token_id: int, device: torch.device) -> View:
    """Token ids as a left-padded view without words (nobody reads a focus from it)."""
    longest = max(len(ids) for ids in prompts)
    ids_BT = torch.full((len(prompts), longest), pad_token_id, dtype=torch.long)
    mask_BT = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, ids in enumerate(prompts):
        ids_BT[row, longest - len(ids) :] = torch.tensor(ids)
        mask_BT[row, longest - len(ids) :] = 1
    position_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
    words_BT = torch.full_like(ids_BT, -1)
    word_mask_BW = torch.zeros(len(prompts), 1, dtype=torch.bool)
    return View(*(x.to(device) for x in (ids_BT, mask_BT, position_BT, words_BT, word_mask_BW)))
