"""Answers come back in order, once each, in records that survive the disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from afa_llm.errors import AfaError
from afa_llm.evaluation.prompted_sentiment import (
    PromptSet,
    answer_prompts,
    measure,
    read_items,
    score_items,
    write_items,
)
from afa_llm.records import Answers, AnswerWords, Example, Prompt

ANSWERS = AnswerWords(("negative", "positive"), ((1,), (2,)))


class FirstTokenGenerator:
    """p(positive) is the prompt's first token id in percent: a generator whose answers are known beforehand."""

    def __init__(self, version_of_call: Sequence[int] = ()) -> None:
        self.batches: list[list[int]] = []
        self.version_of_call = list(version_of_call)

    def answer(self, prompts: Sequence[Prompt], answers: AnswerWords) -> Answers:
        assert answers is ANSWERS
        self.batches.append([len(prompt.token_ids) for prompt in prompts])
        positive = torch.tensor([prompt.token_ids[0] / 100 for prompt in prompts])
        version = self.version_of_call.pop(0) if self.version_of_call else 7
        return Answers(torch.log(torch.stack([1 - positive, positive], dim=1)) - 3.0, version)


def prompt(percent: int, length: int = 3, label: int = 1, name: str | None = None, group: str = "") -> Prompt:
    example = Example(name or f"id-{percent}", f"text {percent} \ud800", label, ((0, 4),), group=group)
    return Prompt(example, (percent,) * length, (0,) * length)


def prompt_set(*prompts: Prompt) -> PromptSet:
    return PromptSet("reviews", "plain", prompts, ANSWERS, (prompt(80, 9, name="cf"), prompt(60, 1, name="cg")))


def test_batches_are_sorted_by_length_and_the_order_is_restored() -> None:
    generator = FirstTokenGenerator()
    prompts = [prompt(10, 2), prompt(20, 9), prompt(30, 5), prompt(40, 7), prompt(50, 1)]
    log_prob, version = answer_prompts(prompts, ANSWERS, generator, batch_size=2)
    assert generator.batches == [[9, 7], [5, 2], [1]]
    assert np.exp(log_prob[:, 1] + 3) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-6)
    assert version == 7


def test_records_carry_raw_and_calibrated_answers() -> None:
    items = measure(
        prompt_set(prompt(65, label=1), prompt(90, label=0)), FirstTokenGenerator(), "before", ("none", "contextual"), 2
    )
    assert [item.example_id for item in items] == ["id-65", "id-90"]
    assert items[0].log_prob == pytest.approx((np.log(0.35) - 3, np.log(0.65) - 3), abs=1e-6)
    assert items[0].probability["none"] == pytest.approx((0.35, 0.65), abs=1e-6)
    # content-free inputs answer 0.8 and 0.6, mean 0.7: 0.65 / 0.7 < 0.35 / 0.3, so the prediction turns
    assert items[0].prediction == {"none": 1, "contextual": 0}
    assert items[1].prediction == {"none": 1, "contextual": 1}
    assert not items[1].right("none")
    assert {(item.phase, item.template, item.adapter_version) for item in items} == {("before", "plain", 7)}


def test_scores_of_records() -> None:
    prompts = [prompt(65, label=1, group="a"), prompt(90, label=0, group="a"), prompt(20, label=0, group="b")]
    found = score_items(measure(prompt_set(*prompts), FirstTokenGenerator(), "before", ("none",), 8), "none", 2)
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.worst_group == "a"
    assert found.brier == pytest.approx(2 * (0.35**2 + 0.9**2 + 0.2**2) / 3, abs=1e-5)


def test_records_come_back_from_disk_unchanged(tmp_path: Path) -> None:
    items = measure(prompt_set(prompt(65), prompt(90)), FirstTokenGenerator(), "after", ("none", "batch"), 1)
    write_items(tmp_path / "items" / "a.jsonl", items)
    assert read_items(tmp_path / "items" / "a.jsonl") == items
    (tmp_path / "b.jsonl").write_text('{"example_id": "1"}\n')
    with pytest.raises(AfaError, match="record 1: not an item record"):
        read_items(tmp_path / "b.jsonl")


def test_an_empty_data_set_gives_no_records() -> None:
    items = measure(PromptSet("d", "t", (), ANSWERS), FirstTokenGenerator(), "before", ("none", "batch"), 4)
    assert items == []
    assert score_items(items, "none", 2).count == 0


def test_an_adapter_that_changes_under_way_stops_the_measurement() -> None:
    with pytest.raises(AfaError, match=r"versions \[1, 2\]"):
        answer_prompts([prompt(10), prompt(20)], ANSWERS, FirstTokenGenerator([1, 2]), batch_size=1)


def test_nan_stops_and_zero_probability_does_not() -> None:
    with pytest.raises(AfaError, match="1 of 2 answers are not numbers, the first for example 'id-150'"):
        answer_prompts([prompt(50), prompt(150)], ANSWERS, FirstTokenGenerator(), batch_size=2)
    items = measure(prompt_set(prompt(100), prompt(50)), FirstTokenGenerator(), "before", ("none", "batch"), 2)
    assert items[0].log_prob[0] == -100.0
    assert items[0].prediction == {"none": 1, "batch": 1}
