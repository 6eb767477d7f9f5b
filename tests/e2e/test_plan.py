"""`afa plan` in real processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


def test_what_does_not_fit_is_told_with_a_setting_and_exit_code_2(afa: Callable, tmp_path: Path) -> None:
    done = afa("plan", "data.max_tokens=64", "--gpu-memory", "1.2", "--host-memory", "8")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr == ""
    verdict = next(line for line in done.stdout.splitlines() if line.startswith("GPU of a rank"))
    assert "does not fit" in verdict and "; set training.micro_batch_size=" in verdict
    assert "host memory: fits" in done.stdout
    assert list(tmp_path.iterdir()) == []
    words = verdict.split("set ")[1].split(" (")[0]
    mended = afa("plan", "data.max_tokens=64", words, "--gpu-memory", "1.2", "--json")
    assert mended.returncode == 0
    assert json.loads(mended.stdout)["verdicts"][0]["fits"] is True


@pytest.mark.slow
def test_wrong_uses(afa: Callable, tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text('{"model_type": "vit"}')
    for arguments, words in (
        (["--ranks", "2"], "--ranks 2: the plain engine is a single process"),
        (["--ranks", "0"], "0: a whole number from 1"),
        (["--ranks-per-node", "2"], "--ranks-per-node 2: more than all ranks"),
        (["--gpu-memory", "nan"], "nan: GiB are a number from 0"),
        (["model.path=./none"], "./none: no such folder"),
        (["model.path=encoder"], "model type vit is no causal language model"),
    ):
        done = afa("plan", *arguments)
        assert done.returncode == 2
        assert words in done.stderr and "Traceback" not in done.stderr


def test_answers_of_several_tokens_are_planned(afa: Callable, tiny_model: Path, tmp_path: Path) -> None:
    """Each review is read once for each label then, and a plan that said "fits" was wrong by that factor."""
    (tmp_path / "t.yaml").write_text(
        'templates: {t: {prompt: "{review} It is", answers: {negative: " a bad film", positive: " a fine film"}}}'
    )
    given = [f"model.path={tiny_model}", "data.max_tokens=64"]
    short = afa("plan", *given, "--json")
    long = afa("plan", *given, "prompts.file=t.yaml", "prompts.train=t", "prompts.evaluation=[t]", "--json")
    assert (short.returncode, long.returncode) == (0, 0), long.stdout + long.stderr
    one, several = (json.loads(done.stdout)["passes"] for done in (short, long))
    assert one["answer_tokens"] == 1 and several["answer_tokens"] > 1 and several["labels"] == 2
    assert several["kept"] > 1.9 * one["kept"]
    bare = [path for path in tiny_model.iterdir() if path.name == "config.json"]
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes(bare[0].read_bytes())
    unknown = afa("plan", "model.path=bare", "data.max_tokens=64", "--json")
    assert unknown.returncode == 0 and "answers are taken at one token" in unknown.stderr
    assert json.loads(unknown.stdout)["passes"]["kept"] == one["kept"]
