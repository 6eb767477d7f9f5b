"""Words found for hidden ones: always words, never the hidden ones, the same in any layout, fitting both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from afa_llm.config_running import Model
from afa_llm.data.batching import collate
from afa_llm.data.planted import planted_examples
from afa_llm.data.prompts import PromptBuilder
from afa_llm.data.templates import Template
from afa_llm.data.vocabulary import load_vocabulary
from afa_llm.data.words import split_words
from afa_llm.method.infilled_views import gapped_prompts, infilled_view
from afa_llm.method.masked_views import views_as_prompts
from afa_llm.models.adapters import load_base, load_tokenizer
from afa_llm.models.decoder import Decoder
from afa_llm.records import Batch, Gap, GappedPrompt
from afa_llm.rollouts import infill
from afa_llm.rollouts.infill import Infiller, seed_of
from afa_llm.rollouts.proposals import TransformersProposer


class Reviews:
    """Planted reviews in a prompt, with random words hidden, before a tiny random Llama."""

    def __init__(self, folder: Path, count: int = 12, rate: float = 0.3) -> None:
        settings = Model(path=str(folder), quantization="none", dtype="float32")
        self.tokenizer = load_tokenizer(settings)
        self.decoder = Decoder(load_base(settings, torch.device("cpu")), (1,), self.tokenizer.pad_token_id)
        self.vocabulary = load_vocabulary(self.tokenizer)
        template = Template("t", "Review: ", "\nSentiment:", (" bad", " good"))
        builder = PromptBuilder(self.tokenizer, template, ("bad", "good"), "never")
        self.prompts = [builder.build(example) for example in planted_examples("train", count, 0)]
        draw = torch.Generator().manual_seed(5)
        words = max(len(prompt.words) for prompt in self.prompts)
        self.hidden = torch.rand(count, 2, words, generator=draw) < rate

    def batch(self, chosen: Sequence[int]) -> Batch:
        return collate([self.prompts[i] for i in chosen], self.tokenizer.pad_token_id)

    def gapped(self, chosen: Sequence[int], masks: Sequence[int] = (0, 1)) -> list[GappedPrompt]:
        batch = self.batch(chosen)
        return gapped_prompts(batch, self.hidden[list(chosen)][..., : batch.word_mask_BW.shape[1]], masks)

    def infiller(self, candidates: int = 2, batch_size: int = 64) -> Infiller:
        return Infiller(TransformersProposer(self.decoder, batch_size), self.vocabulary, candidates)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Reviews:
    from tiny import save_tiny_model

    return Reviews(save_tiny_model(tmp_path_factory.mktemp("tiny")))


EVERY = range(12)
SOME = range(5)


def test_a_word_of_its_kind_for_every_hidden_one_and_never_the_same(reviews: Reviews) -> None:
    prompts = reviews.gapped(EVERY)
    found = reviews.infiller().fill(prompts, seed=0, epoch=0)
    words, filled = reviews.vocabulary, 0
    for prompt, fillings in zip(prompts, found, strict=True):
        assert len(fillings) == len(prompt.gaps)
        for gap, filling in zip(prompt.gaps, fillings, strict=True):
            if not filling:
                continue
            filled += 1
            text = words.text(filling)
            assert text is not None and "\n" not in text
            spelled = [text[start:end] for start, end in split_words(text)]
            hidden = [str(words.text(ids)) for ids in gap.words]
            assert len(spelled) == len(hidden)
            for new, old in zip(spelled, hidden, strict=True):
                assert new.casefold() != old.strip().casefold()
                assert any(map(str.isalnum, new)) == any(map(str.isalnum, old))
            assert text.startswith(" ") == hidden[0].startswith(" ")
    assert filled > 60


def test_the_text_around_stays_and_words_stay_apart(reviews: Reviews) -> None:
    """Decoded, an infilled review has as many words as the review, and the visible ones are where they were."""
    batch, prompts = reviews.batch(EVERY), reviews.gapped(EVERY)
    found = reviews.infiller().fill(prompts, seed=0, epoch=0)
    hidden = reviews.hidden[..., : batch.word_mask_BW.shape[1]]
    rows = views_as_prompts(infilled_view(batch, hidden, prompts, found))
    checked = 0
    for row, (ids, fillings) in enumerate(zip(rows, found, strict=True)):
        text = reviews.tokenizer.decode(ids, skip_special_tokens=True)
        assert text.startswith("Review:") and text.endswith("\nSentiment:")
        if not all(fillings):
            continue
        review = text.removeprefix("Review:").removesuffix("\nSentiment:")
        words = [review[start:end] for start, end in split_words(review)]
        old, gone = reviews.prompts[row // 2].words, hidden[row // 2, row % 2].tolist()
        spelled_apart = all(any(map(str.isalnum, a + b)) for a, b in pairwise(words))  # two signs read as one word
        if not spelled_apart or len(words) != len(old):
            continue
        checked += 1
        for new, word, hid in zip(words, old, gone, strict=False):
            assert hid or new == word
    assert checked >= 15


def test_the_layout_changes_nothing(reviews: Reviews) -> None:
    whole = reviews.infiller().fill(reviews.gapped(SOME), seed=3, epoch=1)
    backwards = reviews.infiller(batch_size=5).fill(reviews.gapped(SOME[::-1]), seed=3, epoch=1)
    assert [backwards[2 * (4 - row // 2) + row % 2] for row in range(10)] == whole
    alone = [reviews.infiller(batch_size=3).fill(reviews.gapped([i]), seed=3, epoch=1) for i in SOME]
    assert [fillings for pair in alone for fillings in pair] == whole


def test_seed_epoch_review_and_mask_name_the_draws(reviews: Reviews) -> None:
    prompts = reviews.gapped([0, 1])
    found = reviews.infiller().fill(prompts, seed=3, epoch=1)
    assert reviews.infiller().fill(prompts, seed=3, epoch=1) == found
    for other in (
        reviews.infiller().fill(prompts, seed=4, epoch=1),
        reviews.infiller().fill(prompts, seed=3, epoch=2),
        reviews.infiller().fill(reviews.gapped([0, 1], masks=(2, 3)), seed=3, epoch=1),
    ):
        assert all(a != b for a, b in zip(found, other, strict=True))


def test_one_candidate_is_plain_sampling_from_the_left(reviews: Reviews) -> None:
    """No continuation is scored, and the first candidate is the same one that more candidates begin with."""
    asked: list[int] = []

    class Counting(TransformersProposer):
        def score(self, asked_now):  # type: ignore[no-untyped-def]
            asked.append(len(asked_now))
            return super().score(asked_now)

    proposer = Counting(reviews.decoder, 64)
    Infiller(proposer, reviews.vocabulary, 1).fill(reviews.gapped([0, 1]), seed=0, epoch=0)
    assert sum(asked) == 0
    Infiller(proposer, reviews.vocabulary, 2).fill(reviews.gapped([0, 1]), seed=0, epoch=0)
    assert sum(asked) > 4


def test_what_cannot_be_filled_is_left_out(reviews: Reviews) -> None:
    text = reviews.prompts[0].token_ids
    nothing_before = GappedPrompt(text, (Gap(0, 1, (text[:1],)), Gap(3, 4, (text[3:4],))), (1, 0))
    special = GappedPrompt(text, (Gap(2, 3, ((1,),)),), (2, 0))
    found = reviews.infiller().fill([nothing_before, special], seed=0, epoch=0)
    assert found[0][0] == () and found[0][1] != () and found[1] == ((),)
    assert reviews.infiller().fill([], seed=0, epoch=0) == []


def test_no_prompt_becomes_longer_than_it_may(reviews: Reviews) -> None:
    prompts = reviews.gapped(SOME)
    free = reviews.infiller().fill(prompts, seed=0, epoch=0)
    longest = max(len(prompt.token_ids) for prompt in prompts)
    bound = replace(reviews.infiller(), longest=longest).fill(prompts, seed=0, epoch=0)

    def lengths(fillings: list[tuple[tuple[int, ...], ...]]) -> list[int]:
        gone = [sum(gap.end - gap.start for gap in prompt.gaps) for prompt in prompts]
        new = [sum(map(len, row)) for row in fillings]
        return [len(prompt.token_ids) - g + n for prompt, g, n in zip(prompts, gone, new, strict=True)]

    assert max(lengths(free)) > longest >= max(lengths(bound)) > longest - 10


def test_no_text_is_asked_about_that_is_longer_than_a_prompt_may_be(reviews: Reviews) -> None:
    """An engine refuses it, and a table of positions is read past its end."""
    asked: list[int] = []

    class Measuring(TransformersProposer):
        def draw(self, asked_now):  # type: ignore[no-untyped-def]
            asked.extend(len(each.prefix) + each.tokens - 1 for each in asked_now)  # the last one drawn is not read
            return super().draw(asked_now)

        def score(self, asked_now):  # type: ignore[no-untyped-def]
            asked.extend(len(each.prefix) + len(each.token_ids) for each in asked_now)
            return super().score(asked_now)

    for prompt in reviews.gapped(SOME):
        asked.clear()
        longest = len(prompt.token_ids)
        whole = Infiller(Measuring(reviews.decoder, 64), reviews.vocabulary, longest=longest)
        whole.fill([prompt], seed=0, epoch=0)
        assert 0 < max(asked) <= longest


def test_seeds_are_63_bits_and_even() -> None:
    seeds = {seed_of((1, n)) for n in range(2000)} | {seed_of((n, 1)) for n in range(2, 2000)}
    assert len(seeds) == 3998
    assert all(0 <= seed < 2**63 and seed % 2 == 0 for seed in seeds)


def test_questions_of_many_works_are_asked_together() -> None:
    def work(times: int) -> infill.Work[list[object]]:
        replies: list[object] = []
        for turn in range(times):
            replies += yield [turn] * times  # type: ignore[list-item]
        return replies

    together = infill.side_by_side([work(2), work(0), work(3)])
    asked: list[object] = []

    def ask() -> None:
        replies = None
        while True:
            asked.append(together.send(replies))  # type: ignore[arg-type]
            replies = [10 * n for n in range(len(asked[-1]))]  # type: ignore[arg-type]

    with pytest.raises(StopIteration) as done:
        ask()
    assert asked == [[0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [2, 2, 2]]
    assert done.value.value == [[0, 10, 0, 10], [], [20, 30, 40, 20, 30, 40, 0, 10, 20]]
