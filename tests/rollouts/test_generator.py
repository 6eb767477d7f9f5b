"""Prompts answered in batches and by teams, against one plain forward for each.

Legend: N prompts, C labels, B rows of a pass, T tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from afa_llm.config_running import Lora
from afa_llm.models.adapters import attach_lora
from afa_llm.models.attention_capture import CAPTURE, register
from afa_llm.models.decoder import Decoder
from afa_llm.records import AnswerWords, DecoderReading, View
from afa_llm.rollouts.generator import ALONE, TransformersGenerator, shared, view_of

CLOSE = 1e-5  # worst case measured: 1e-6
SINGLE = AnswerWords(("bad", "good"), ((5,), (6,)))
SEVERAL = AnswerWords(("bad", "very good", "ok"), ((5,), (6, 7), (8, 9, 10)))
LENGTHS = (7, 2, 12, 12, 1, 9, 3)


def make_prompts(lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    draw = torch.Generator().manual_seed(3)
    return [torch.randint(3, 60, (length,), generator=draw).tolist() for length in lengths]


def make_model(**changes: Any) -> nn.Module:
    register()
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, attn_implementation=CAPTURE, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    return model


class CountingDecoder(Decoder):
    """The real decoder; remembers the shape of every pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, (1,), 0)
        self.passes: list[tuple[int, ...]] = []

    def read(self, view: View, answers: AnswerWords, *, vocabulary: bool = False) -> DecoderReading:
        self.passes.append(tuple(view.input_ids_BT.shape))
        return super().read(view, answers, vocabulary=vocabulary)


@dataclass
class Table:
    """Where the threads of a fake team lay their parts."""

    size: int
    parts: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=30)


@dataclass(frozen=True)
class Member:
    """A rank of a fake team: the ranks are threads that wait for each other as processes do."""

    rank: int
    table: Table

    @property
    def size(self) -> int:
        return self.table.size

    def gather(self, item: Any) -> list[Any]:
        self.table.parts[self.rank] = item
        self.table.barrier.wait()
        found = [self.table.parts[rank] for rank in range(self.size)]
        self.table.barrier.wait()
        return found

    def heed(self) -> None: ...

    def beat(self) -> None: ...


def on_every_rank(size: int, work: Any) -> list[Any]:
    """What `work(member)` gave on each rank of a fake team."""
    table, results = Table(size), [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(Member(rank, table))
        except BaseException:
            table.barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def one_by_one(model: nn.Module, prompts: Sequence[Sequence[int]], answers: AnswerWords) -> torch.Tensor:
    """[N, C]: each prompt alone and unpadded, each answer by a plain full forward."""
    scores = torch.zeros(len(prompts), len(answers.labels))
    for n, prompt in enumerate(prompts):
        for c, answer in enumerate(answers.token_ids):
            with torch.no_grad():
                logprob = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
            scores[n, c] = sum(logprob[len(prompt) - 1 + a, token] for a, token in enumerate(answer)) / len(answer)
    return scores


@pytest.mark.parametrize("answers", [SINGLE, SEVERAL], ids=["single", "several"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_answers_are_those_of_single_forwards_in_the_order_asked(answers: AnswerWords, batch_size: int) -> None:
    model, prompts = make_model(), make_prompts()
    found = TransformersGenerator(Decoder(model, (1,), 0), batch_size).answer(prompts, answers)
    expected = one_by_one(model, prompts, answers)
    assert found.label_logprob_NC.shape == (7, len(answers.labels))
    assert (found.label_logprob_NC - expected).abs().max() < CLOSE
    assert torch.cdist(expected, expected).add(torch.eye(7)).min() > 0.01  # a wrong order would be seen


def test_answers_equal_the_decoder_asked_one_by_one() -> None:
    decoder, prompts = Decoder(make_model(), (1,), 0), make_prompts()
    found = TransformersGenerator(decoder, 3).answer(prompts, SEVERAL).label_logprob_NC
    for n, prompt in enumerate(prompts):
        with torch.no_grad():
            alone = decoder.read(view_of([prompt], 0, torch.device("cpu")), SEVERAL).label_logprob_BC[0]
        assert (found[n] - alone).abs().max() < CLOSE


def test_prompts_of_like_length_share_a_pass() -> None:
    decoder = CountingDecoder(make_model())
    TransformersGenerator(decoder, 2).answer(make_prompts(), SINGLE)
    assert decoder.passes == [(2, 2), (2, 7), (2, 12), (1, 12)]


def test_answers_carry_the_version_and_lie_on_the_cpu_in_float32() -> None:
    generator = TransformersGenerator(Decoder(make_model().bfloat16(), (1,), 0), 4)
    generator.adapter_version = 17
    found = generator.answer(make_prompts(), SINGLE)
    assert found.adapter_version == 17
    assert (found.label_logprob_NC.dtype, found.label_logprob_NC.device.type) == (torch.float32, "cpu")
    assert not found.label_logprob_NC.requires_grad
    assert generator.answer([], SINGLE).adapter_version == 17


def test_dropout_is_off_while_answering() -> None:
    model = attach_lora(make_model(), Lora(rank=2, dropout=0.5), seed=0, gradient_checkpointing=False)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    generator, prompts = TransformersGenerator(Decoder(model, (1,), 0), 4), make_prompts()
    expected = generator.answer(prompts, SINGLE).label_logprob_NC
    model.train()
    assert torch.equal(generator.answer(prompts, SINGLE).label_logprob_NC, expected)
    assert model.training


@pytest.mark.parametrize("answers", [SINGLE, SEVERAL], ids=["single", "several"])
def test_no_prompts_no_answers(answers: AnswerWords) -> None:
    decoder = CountingDecoder(make_model())
    found = TransformersGenerator(decoder, 4).answer([], answers)
    assert found.label_logprob_NC.shape == (0, len(answers.labels))
    assert decoder.passes == []


@pytest.mark.parametrize("prompts", [[[]], [[3, 4], [], [5]]])
def test_a_prompt_without_tokens_is_an_error(prompts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=rf"prompt {prompts.index([])} of {len(prompts)} has no tokens"):
        TransformersGenerator(Decoder(make_model(), (1,), 0), 4).answer(prompts, SINGLE)


# Teams


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 9])
def test_every_rank_gets_every_answer_and_does_an_equal_share(size: int, count: int) -> None:
    asked = [f"question {i}" for i in range(count)]
    heard: dict[int, list[str]] = {}

    def work(member: Member) -> list[str]:
        def answer(mine: Sequence[str]) -> list[str]:
            heard[member.rank] = list(mine)
            return [f"rank {member.rank} on {question}" for question in mine]

        return shared(member, asked, answer)

    results = on_every_rank(size, work)
    assert all(result == results[0] for result in results)
    assert [given.split(" on ")[1] for given in results[0]] == asked
    if count == 0:
        assert heard == {}
        return
    share = -(-count // size)
    assert [len(heard[rank]) for rank in range(size)] == [share] * size
    everything = [question for mine in heard.values() for question in mine]
    fillers = share * size - count
    assert sorted(everything) == sorted(asked + [asked[0]] * fillers)


def test_alone_asks_everything_once() -> None:
    heard: list[str] = []
    assert shared(ALONE, ["a", "b", "c"], lambda mine: heard.extend(mine) or [x.upper() for x in mine]) == list("ABC")
    assert heard == ["a", "b", "c"]


@pytest.mark.parametrize("size", [2, 3])
def test_a_team_answers_as_one(size: int) -> None:
    """Seven prompts over two or three ranks, each with a model of its own; all make the same number of passes."""
    prompts = make_prompts()
    expected = one_by_one(make_model(), prompts, SEVERAL)
    decoders = [CountingDecoder(make_model()) for _ in range(size)]

    def work(member: Member) -> torch.Tensor:
        generator = TransformersGenerator(decoders[member.rank], 2, member)
        return generator.answer(prompts, SEVERAL).label_logprob_NC

    results = on_every_rank(size, work)
    assert all(torch.equal(result, results[0]) for result in results)
    assert (results[0] - expected).abs().max() < CLOSE
    assert len({len(decoder.passes) for decoder in decoders}) == 1


def test_view_of_pads_on_the_left() -> None:
    view = view_of([[7, 8], [9, 10, 11]], 99, torch.device("cpu"))
    assert view.input_ids_BT.tolist() == [[99, 7, 8], [9, 10, 11]]
    assert view.attention_mask_BT.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert view.position_BT.tolist() == [[0, 0, 1], [0, 1, 2]]
    assert (view.word_of_token_BT == -1).all() and not view.word_mask_BW.any()
