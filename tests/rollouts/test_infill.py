"""Words found for hidden ones: always words, never the hidden ones, the same in any layout, fitting both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from scipy import stats
from test_proposals import small_llama

from afa_llm.config_running import Model
from afa_llm.data.batching import collate
from afa_llm.data.planted import planted_examples
from afa_llm.data.prompts import PromptBuilder
from afa_llm.data.templates import Template
from afa_llm.data.vocabulary import Vocabulary, load_vocabulary
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


# A vocabulary of whole words, small enough to enumerate: 0 begins the text, 9 to 11 go on as no word does.
WHOLE = Vocabulary((None, *(f" w{i}" for i in range(8)), " .", " ,", "\n"))
PROMPT = GappedPrompt((0, 4, 2, 3, 5, 5, 8), (Gap(3, 4, ((3,),)),), (11, 0))


def exact(behind: int) -> torch.Tensor:
    """p(word | left), times p(the next `behind` tokens | left, word): over words 1..8 but the hidden 3."""
    model, ids = small_llama(12, seed=26), PROMPT.token_ids
    weight = torch.zeros(12, dtype=torch.float64)
    for word in (1, 2, 4, 5, 6, 7, 8):
        text = torch.tensor([[*ids[:3], word, *ids[4 : 4 + behind]]])
        with torch.no_grad():
            logprob = model(text).logits[0].double().log_softmax(-1)
        steps = [logprob[at, text[0, at + 1]] for at in range(2, text.shape[1] - 1)]
        weight[word] = torch.stack(steps).sum().exp()
    return weight / weight.sum()


def chosen_words(candidates: int, lookahead: int, draws: int) -> torch.Tensor:
    decoder = Decoder(small_llama(12, seed=26), (1,), 0)
    infiller = Infiller(TransformersProposer(decoder, 2000), WHOLE, candidates, lookahead=lookahead)
    prompts = [GappedPrompt(PROMPT.token_ids, PROMPT.gaps, (review, 0)) for review in range(draws)]
    found = infiller.fill(prompts, seed=0, epoch=0)
    return torch.tensor([filling[0] for (filling,) in found]).bincount(minlength=12)


def test_one_candidate_has_the_distribution_from_the_left() -> None:
    expected, counts = exact(0), chosen_words(1, 3, 4000)
    assert counts[expected == 0].sum() == 0
    likely = expected > 0
    # Fixed seeds; p measured: 0.03, and 0.61 with 20,000 draws.
    assert stats.chisquare(counts[likely].numpy(), (expected[likely] * 4000).numpy()).pvalue > 0.01


def test_many_candidates_approach_the_distribution_given_both_sides() -> None:
    """Total variation between what is chosen and p(word | both sides), by enumeration, falls with the candidates."""
    both, left = exact(3), exact(0)
    distance = {}
    for candidates in (1, 4, 16):
        share = chosen_words(candidates, 3, 1500) / 1500
        distance[candidates] = float((share - both).abs().sum() / 2)
    assert float((left - both).abs().sum() / 2) > 0.4  # else there is nothing to approach
    # Measured: 0.40, 0.14, 0.05; 1,500 draws of the true one would be 0.02 away.
    assert distance[16] < 0.08 and distance[16] < distance[4] < distance[1]


def test_only_what_stands_before_the_next_gap_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    two = GappedPrompt((0, 4, 2, 3, 7, 5, 1, 9), (Gap(3, 4, ((3,),)), Gap(5, 6, ((5,),))), (11, 0))
    seen: list[tuple[int, ...]] = []
    before: list[tuple[int, ...]] = []

    class Seeing(TransformersProposer):
        def score(self, asked):  # type: ignore[no-untyped-def]
            seen.extend(each.token_ids for each in asked)
            before.extend(each.prefix for each in asked if len(each.prefix) > 4)
            return super().score(asked)

    proposer = Seeing(Decoder(small_llama(12, seed=26), (1,), 0), 64)
    ((filling, _),) = Infiller(proposer, WHOLE, 8, lookahead=16).fill([two], seed=0, epoch=0)
    assert set(seen) == {(7,), (1, 9)}
    assert {prefix[:5] for prefix in before} == {(0, 4, 2, *filling, 7)}  # the gap before stands filled
    seen.clear()
    Infiller(proposer, WHOLE, 8, lookahead=1).fill([two], seed=0, epoch=0)
    assert set(seen) == {(7,), (1,)}


def test_the_hidden_word_spelled_with_other_tokens_is_drawn_again() -> None:
    """The first token of the hidden word is banned; its other spellings are found by their text."""
    spelled = Vocabulary((None, " w1", " w", "1", "2", " .", *[None] * 6))
    decoder = Decoder(small_llama(12, seed=26), (1,), 0)
    infiller = Infiller(TransformersProposer(decoder, 500), spelled, 1)
    prompts = [GappedPrompt((0, 5, 1, 5, 5), (Gap(2, 3, ((1,),)),), (review, 0)) for review in range(300)]
    texts = Counter(spelled.text(filling) for (filling,) in infiller.fill(prompts, seed=0, epoch=0))
    assert " w1" not in texts and texts[" w"] + texts[" w2"] > 20


def test_a_hidden_word_that_is_all_but_certain_is_replaced_too() -> None:
    likely = int(exact(0).argmax())
    gap = Gap(3, 4, ((likely,),))
    decoder = Decoder(small_llama(12, seed=26), (1,), 0)
    infiller = Infiller(TransformersProposer(decoder, 500), WHOLE, 1, temperature=0.02)
    prompts = [GappedPrompt((*PROMPT.token_ids[:3], likely, 5), (gap,), (review, 0)) for review in range(20)]
    assert all(filling not in ((), (likely,)) for (filling,) in infiller.fill(prompts, seed=0, epoch=0))


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
