"""Which words stand in for hidden ones, where all can be enumerated: their distribution given both sides."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from scipy import stats
from test_proposals import small_llama

from afa_llm.data.vocabulary import Vocabulary
from afa_llm.models.decoder import Decoder
from afa_llm.records import Gap, GappedPrompt
from afa_llm.rollouts.infill import Infiller
from afa_llm.rollouts.proposals import TransformersProposer

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
