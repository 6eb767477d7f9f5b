"""Settings of `rollouts` that can't run here are told before a model is loaded; which ranks hold engines."""

from __future__ import annotations

import json
import resource
import shutil
import sys
from pathlib import Path

import pytest
import torch

from afa_llm import engine_assembly, material
from afa_llm.config_loading import load_config
from afa_llm.config_running import Model, Rollouts
from afa_llm.engine_assembly import check_engine
from afa_llm.errors import AfaError
from afa_llm.material import prepare
from afa_llm.models.adapters import load_base, load_tokenizer
from afa_llm.models.served_base import save_dequantised

ENGINE = ["rollouts.backend=vllm_server", "masking.view=delete", "data.evaluation=[]", "data.train.max_samples=20"]


def test_without_vllm_the_gain_and_the_way_out_are_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(material, "load_tokenizer", lambda _: pytest.fail("something was loaded"))
    config = load_config(None, [*ENGINE, f"rollouts.vllm_python={tmp_path}/python"])
    with pytest.raises(
        AfaError, match=r"python has no vLLM, which would .*pip install .*rollouts.backend=transformers"
    ):
        prepare(config)


def test_a_prompt_that_leaves_an_engine_no_place_for_its_token_is_told_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pocket model reads 1024 tokens; vLLM refuses a prompt of 1024, in the middle of a run."""
    rows = "".join(json.dumps({"text": "good film " * 2000, "label": label}) + "\n" for label in ("1", "0"))
    (tmp_path / "long.jsonl").write_text(rows)
    monkeypatch.setattr(engine_assembly, "_has_vllm", lambda _: True)
    long = [
        f"data.train.path={tmp_path}/long.jsonl",
        "data.labels={negative: [0], positive: [1]}",
        "data.too_long=truncate",
    ]
    long += ["data.max_tokens=1024", *ENGINE]
    with pytest.raises(AfaError, match=r"a prompt of 1024 tokens, .* can read 1023 beside .*set data.max_tokens=1023"):
        prepare(load_config(None, long))
    prepare(load_config(None, [*long, "data.max_tokens=1023"]))
    prepare(load_config(None, [*long, "rollouts.backend=transformers"]))
    measured = f"data.evaluation=[{{path: '{tmp_path}/long.jsonl'}}]"
    prepare(load_config(None, [*long, measured]), training=False)  # nothing is asked
    with pytest.raises(AfaError, match="a prompt of 1024 tokens"):
        prepare(load_config(None, [*long, measured, "evaluation.through_engine=true"]), training=False)


def test_an_interpreter_is_asked_whether_it_has_vllm(tmp_path: Path) -> None:
    script = tmp_path / "python"
    for code in (0, 1):
        script.write_text(f"#!/bin/sh\nexit {code}\n")
        script.chmod(0o755)
        assert engine_assembly._has_vllm(str(script)) == (code == 0)
    assert engine_assembly._has_vllm(sys.executable) == engine_assembly._has_vllm(None)


def test_engines_at_addresses_want_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Rollouts(backend="vllm_server", addresses=("http://10.0.0.1:80",))
    monkeypatch.delenv("AFA_ENGINE_TOKEN", raising=False)
    with pytest.raises(AfaError, match=r"the environment variable AFA_ENGINE_TOKEN holds no token"):
        check_engine(settings)
    check_engine(settings.model_copy(update={"token_variable": None}))
    monkeypatch.setenv("AFA_ENGINE_TOKEN", "secret")
    check_engine(settings)


def test_a_token_that_no_request_can_carry_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Rollouts(backend="vllm_server", addresses=("http://10.0.0.1:80",))
    monkeypatch.setenv("AFA_ENGINE_TOKEN", "secret\n")  # as out of a file
    assert engine_assembly._token(settings) == "secret"
    for token in ("two\nlines", "t€n"):
        monkeypatch.setenv("AFA_ENGINE_TOKEN", token)
        with pytest.raises(AfaError, match=r"rollouts.token_variable = AFA_ENGINE_TOKEN: .* cannot be sent"):
            check_engine(settings)


def test_runs_of_one_name_have_adapter_folders_of_their_own(tmp_path: Path) -> None:
    """Cells of a benchmark are called seed0, seed1, ... in every arm; each takes its folder away at its end."""
    shared = Rollouts(adapter_folder=str(tmp_path / "shared"))
    runs = [tmp_path / arm / "seed0" for arm in ("afa", "cross-entropy")]
    found = [engine_assembly._adapter_folder(shared, run, rank) for run in runs for rank in (0, 8)]
    assert len(set(found)) == 4 and {path.parent for path in found} == {tmp_path / "shared"}
    assert found[0] == engine_assembly._adapter_folder(shared, runs[0], 0)  # a resumed run comes back to it
    assert engine_assembly._adapter_folder(Rollouts(), runs[0], 0).parent == runs[0] / "engine"


def test_one_rank_holds_engines_or_one_of_each_node() -> None:
    class Ranks:
        rank, size = 0, 5

        def gather(self, _: str) -> list[str]:
            return ["b", "a", "a", "b", "c"]

    one, each = Rollouts(), Rollouts(one_per_node=True)
    assert engine_assembly._holders(one, Ranks()) == [0]  # type: ignore[arg-type]
    assert engine_assembly._holders(each, Ranks()) == [0, 1, 4]  # type: ignore[arg-type]
    theirs = Rollouts(one_per_node=True, addresses=("http://10.0.0.1:80",))
    assert engine_assembly._holders(theirs, Ranks()) == [0]  # type: ignore[arg-type]


def test_an_unpacked_base_that_finds_no_room_is_told(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(AfaError, match=rf"cannot be written to {tmp_path}/base: .*File too large"):
            save_dequantised(Model(dtype="float32"), tmp_path / "base")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_the_unpacked_base_answers_like_the_quantised_one(tmp_path: Path) -> None:
    settings = Model(dtype="float32")
    save_dequantised(settings, tmp_path / "base")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
    load_tokenizer(settings.model_copy(update={"path": str(tmp_path / "base")}))
    ids_BT = torch.tensor([[1, 50, 600, 70, 8, 999]])
    logits = {}
    for name, change in {
        "quantised": {},
        "unpacked": {"path": str(tmp_path / "base"), "quantization": "none"},
        "original": {"quantization": "none"},
    }.items():
        model = load_base(settings.model_copy(update=change), torch.device("cpu"))
        with torch.no_grad():
            logits[name] = model(ids_BT).logits
    distance = {name: float((logits[name] - logits["quantised"]).abs().max()) for name in logits}
    assert distance["unpacked"] < 1e-4 < 0.05 < distance["original"], distance


def test_an_unpacked_base_of_other_weights_is_replaced(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was resumed with another model.path served the old one, and a folder that says nothing may be old."""
    from afa_llm.models import served_base

    loads: list[str] = []

    def counted(settings: Model, device: torch.device) -> torch.nn.Module:
        loads.append(settings.path)
        return load_base(settings, device)

    monkeypatch.setattr(served_base, "load_base", counted)
    first, second = (str(shutil.copytree(tiny_model, tmp_path / name)) for name in ("first", "second"))
    wanted = [first, first, second, second, first]
    for path in wanted:
        save_dequantised(Model(path=path, dtype="float32"), tmp_path / "run" / "base")
    assert loads == [first, second, first]
    save_dequantised(Model(path=first, dtype="bfloat16"), tmp_path / "run" / "base")
    (tmp_path / "run" / "base" / served_base.ORIGIN).unlink()
    save_dequantised(Model(path=first, dtype="bfloat16"), tmp_path / "run" / "base")
    assert loads == [first, second, first, first, first]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["base"]
