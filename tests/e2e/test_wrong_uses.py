"""Wrong uses: one clear message that names the setting, exit code 2, no traceback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

LINES = '{"text": "a fine film", "label": 1}\n{"text": "a dull film", "label": 0}\n' * 6

CASES = {
    "unknown key": (["training.lerning_rate=1"], "training.learning_rate"),
    "unknown section": (["trainin.epochs=1"], "did you mean training"),
    "missing config": (["nowhere.yaml"], "nowhere.yaml"),
    "missing data": (["data.train.path=nowhere.jsonl"], "nowhere.jsonl"),
    "label not in the mapping": (["data.train.path=odd.jsonl"], "mixed"),
    "no review slot": (["prompts.file=slotless.yaml", "prompts.train=t", "prompts.evaluation=[t]"], "{review}"),
    "label words collide": (["prompts.file=collide.yaml", "prompts.train=t", "prompts.evaluation=[t]"], "answers"),
    "rate outside (0, 1)": (["masking.rate=1.2"], "masking.rate"),
    "more masks than words": (["data.train.path=short.jsonl", "masking.masks_per_review=40"], "more masks than words"),
    "ZeRO with one process": (["training.zero_stage=2"], "training.engine=deepspeed"),
    "unknown template": (["prompts.train=review_sentimant"], "review_sentiment"),
    "unknown suite": (["data.train.path=suite:sst3"], "there are sst2"),
    "missing suite": (
        ["data.train.path=suite:sst2", "data.suites_dir=."],
        "load_dataset('SetFit/sst2', split='train')",
    ),
    "spurious label": (["data.train.spurious.label=nice"], "spurious.label = nice"),
    "missing lexicon": (["evaluation.lexicon=nowhere.txt"], "evaluation.lexicon = nowhere.txt"),
    "missing model": (["model.path=./no-such-model"], "model.path"),
    "missing column": (["data.train.path=short.jsonl", "data.train.text_column=body"], "text"),
    "one label": (
        ["data.train.path=alike.jsonl", "masking.masks_per_review=2"],
        "all 12 reviews to train on are 'positive'",
    ),
    "no rationale": (
        ["data.train.path=short.jsonl", "masking.masks_per_review=2", "reward.source=rationale"],
        "no training review of short has a decisive word marked",
    ),
    "no focus fraction": (["evaluation.focus_fractions=[]"], "evaluation.focus_fractions"),
    "layer out of range": (["attention.layers=[7]", "data.evaluation=[]"], "attention.layers"),
}


@pytest.fixture
def files(tmp_path: Path) -> None:
    (tmp_path / "short.jsonl").write_text(LINES)
    (tmp_path / "alike.jsonl").write_text(LINES.replace('"label": 0', '"label": 1'))
    (tmp_path / "odd.jsonl").write_text(LINES.replace('"label": 1', '"label": "mixed"'))
    (tmp_path / "slotless.yaml").write_text(
        'templates: {t: {prompt: "Sentiment:", answers: {negative: " bad", positive: " good"}}}'
    )
    (tmp_path / "collide.yaml").write_text(
        'templates: {t: {prompt: "{review} Sentiment:", answers: {negative: " good", positive: " good"}}}'
    )


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", CASES)
def test_wrong_use(forking: subprocess.Popen[str], tiny_model: Path, tmp_path: Path, name: str) -> None:
    arguments, expected = CASES[name]
    model = [] if any(a.startswith("model.path") for a in arguments) else [f"model.path={tiny_model}"]
    assert forking.stdin and forking.stdout
    print(
        json.dumps({"folder": str(tmp_path), "arguments": ["train", *arguments, *model]}),
        file=forking.stdin,
        flush=True,
    )
    code, out, err = json.loads(forking.stdout.readline())
    assert code == 2, out + err
    assert expected in err
    assert "Traceback" not in err


def test_a_wrong_use_by_a_process_of_its_own(afa: Callable, tiny_model: Path) -> None:
    """As `test_wrong_use`, without a fork."""
    done = afa("train", "data.train.path=nowhere.jsonl", f"model.path={tiny_model}")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "nowhere.jsonl" in done.stderr and "Traceback" not in done.stderr


def test_several_ranks_with_the_plain_engine(afa: Callable, tiny_model: Path) -> None:
    done = afa("train", f"model.path={tiny_model}", ranks=2)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("set training.engine=deepspeed") == 1
