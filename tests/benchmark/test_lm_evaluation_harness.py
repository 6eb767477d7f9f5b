"""Our prompted scores are those of lm-evaluation-harness's `sst2` task, on the same model, prompt and reviews.

Its task file is used as installed; only its data comes from a local file instead of the hub.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
import torch
import yaml

from afa_llm.config import Config
from afa_llm.config_data import Evaluation
from afa_llm.config_method import Attention
from afa_llm.config_running import Model
from afa_llm.data.planted import planted_examples
from afa_llm.data.prompts import PromptBuilder
from afa_llm.data.templates import load_templates
from afa_llm.evaluation.prompted_sentiment import PromptSet, measure, score_items
from afa_llm.models.adapters import load_base, load_tokenizer
from afa_llm.models.decoder import Decoder, choose_layers
from afa_llm.rollouts.generator import TransformersGenerator
from afa_llm.run_results import TokenIdAnswers

LABELS = ("negative", "positive")
REVIEWS = 60


def task_of_the_harness(file: Path) -> dict:
    """The installed sst2 task with its validation split read from a JSON Lines file."""
    task = yaml.safe_load((resources.files("lm_eval") / "tasks" / "glue" / "sst2" / "default.yaml").read_text())
    assert task["task"] == "sst2" and task["output_type"] == "multiple_choice"
    for setting in ("dataset_name", "training_split", "tag"):
        task.pop(setting, None)
    return task | {"dataset_path": "json", "dataset_kwargs": {"data_files": {"validation": str(file)}}}


def test_sst2_scores_agree(tmp_path: Path) -> None:
    import lm_eval  # takes seconds, and only this test wants it
    from lm_eval.models.huggingface import HFLM

    examples = planted_examples("test", REVIEWS, 0)
    file = tmp_path / "sst2.jsonl"
    file.write_text(
        "".join(json.dumps({"sentence": e.text, "label": e.label, "idx": k}) + "\n" for k, e in enumerate(examples))
    )
    task = task_of_the_harness(file)
    prompt = task["doc_to_text"].replace("{{sentence}}", "{review}")
    answers = dict(zip(LABELS, (f" {choice}" for choice in task["doc_to_choice"]), strict=True))
    (tmp_path / "templates.yaml").write_text(
        yaml.safe_dump({"templates": {"sst2": {"prompt": prompt, "answers": answers}}})
    )

    config = Config(model=Model(quantization="none", dtype="float32"), attention=Attention(), evaluation=Evaluation())
    tokenizer, model = load_tokenizer(config.model), load_base(config.model, torch.device("cpu"))
    builder = PromptBuilder(
        tokenizer, load_templates(str(tmp_path / "templates.yaml"), ["sst2"], LABELS)["sst2"], LABELS
    )
    prompts = tuple(builder.build(example) for example in examples)
    depth = int(model.config.num_hidden_layers)
    decoder = Decoder(model, choose_layers("last_half", depth), tokenizer.pad_token_id)
    generator = TokenIdAnswers(TransformersGenerator(decoder, 16))
    ours = measure(PromptSet("sst2", "sst2", prompts, builder.answer_words), generator, "before", ["none"], 16)

    begins = prompts[0].token_ids[0] == tokenizer.bos_token_id
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16, add_bos_token=begins, backend="causal")
    found = lm_eval.simple_evaluate(harness, tasks=[task], log_samples=True, bootstrap_iters=0)
    theirs = sorted(found["samples"]["sst2"], key=lambda sample: sample["doc_id"])

    lengths = [len(ids) for ids in builder.answer_words.token_ids]
    for sample, item in zip(theirs, ours, strict=True):
        assert sample["doc"]["sentence"] == item.text
        # The harness sums over an answer's tokens, we take their mean: alike for answers of one length.
        sums = [value * length for value, length in zip(item.log_prob, lengths, strict=True)]
        assert [reply[0] for reply in sample["filtered_resps"]] == pytest.approx(sums, abs=2e-4)
    assert len(set(lengths)) == 1
    accuracy = score_items(ours, "none", 2).accuracy
    assert found["results"]["sst2"]["acc,none"] == pytest.approx(accuracy.value)
    assert 0.4 < accuracy.value < 1.0
