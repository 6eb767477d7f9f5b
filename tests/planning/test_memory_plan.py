"""Whole plans: a 7B and a 70B Llama against numbers counted by hand, shares of ranks, verdicts, what is proposed."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loaded import LLAMA_7B, LLAMA_70B, save_random_llama, save_shape
from rich.console import Console
from transformers import LlamaForCausalLM

from afa_llm.config import Config
from afa_llm.config_loading import load_config
from afa_llm.errors import AfaError
from afa_llm.planning.blueprint import blueprint
from afa_llm.planning.dry_run import reading_pass
from afa_llm.planning.fits import Memory, Verdict, mend_of, verdicts
from afa_llm.planning.layout import Layout, layout_of, with_offload
from afa_llm.planning.plan import GIB, Plan, make_plan
from afa_llm.planning.round_passes import adapted, round_passes
from afa_llm.planning.table import as_json, assumptions, print_plan, verdict_line
from afa_llm.records import AnswerWords

SHARDED = ["training.engine=deepspeed", "training.zero_stage=3"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_llama(tmp_path_factory.mktemp("llama"))


def settings(folder: Path, *overrides: str) -> Config:
    return load_config(None, [f"model.path={folder}", *overrides])


def plan_of(config: Config, ranks: int = 1, *, offload: bool = False, on_gpu: bool = True) -> Plan:
    layout = layout_of(config, ranks, ranks, on_gpu=on_gpu)
    return make_plan(config, with_offload(layout) if offload else layout, on_gpu=on_gpu)


def parts(plan: Plan) -> dict[str, int]:
    return {part.name: part.bytes for part in plan.device}


def test_rows_of_attention_are_held_for_every_label(llama: Path) -> None:
    """With answers of several tokens a review is read once for each label, and each reading holds its rows."""
    config = settings(llama, "model.quantization=none", "model.dtype=float32", "data.max_tokens=64")
    grades = AnswerWords(("low", "fair", "high"), ((5, 6), (7,), (8, 9)))
    layout = layout_of(config, 1, 1, on_gpu=False)
    model = adapted(config, blueprint(config.model).model)
    found = round_passes(config, model, layout, grades)
    text, reviews = model.config, config.training.reviews_per_step
    layers = tuple(range(text.num_hidden_layers))
    masked = reading_pass(model, layers, found.masked_rows, 64, grades).peak
    one_row = 3 * len(layers) * text.num_attention_heads * 64 * 4
    views = config.masking.masks_per_review + 1  # and the random mask that the adversary is compared with
    assert found.looking - masked - found.kept == one_row * (2 * views * reviews + reviews)


def test_a_7b_llama(tmp_path: Path) -> None:
    """NF4: 32 layers of 4·4096² + 3·4096·11008 weights at half a byte; embedding, output layer and 65 norms at two."""
    small = ["data.max_tokens=64", "training.micro_batch_size=2", "evaluation.batch_size=2"]
    plan = plan_of(settings(save_shape(tmp_path, **LLAMA_7B), *small))
    quantized, others = 32 * (4 * 4096**2 + 3 * 4096 * 11008), 2 * 32000 * 4096 + 65 * 4096
    assert quantized + others == 6_738_415_616
    adapter = 32 * 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert adapter == 39_976_960
    found = parts(plan)
    assert found["base weights"] == quantized // 2 + 2 * others  # 3.50 GiB
    assert found["scales, buffers"] == pytest.approx(quantized / 64 * (1 + 4 / 256), rel=0.01)
    assert (found["adapter"], found["gradients"], found["AdamW moments"]) == (4 * adapter, 4 * adapter, 8 * adapter)
    assert plan.file_bytes == 2 * (quantized + others)
    per_token = found["activations for backward"] / (2 * 64)
    assert 6e6 < per_token < 10e6  # 32 layers; float32 inputs of 7 adapted layers each are 143 KB, and as much again


@pytest.mark.slow
def test_a_70b_llama_on_8_ranks(tmp_path: Path) -> None:
    small = ["data.max_tokens=64", "training.micro_batch_size=2", "evaluation.batch_size=2"]
    plan = plan_of(settings(save_shape(tmp_path, **LLAMA_70B), *SHARDED, *small), 8)
    quantized = 80 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28672)
    others = 2 * 128256 * 8192 + 161 * 8192
    assert quantized + others == 70_553_706_496
    whole = quantized // 2 + 2 * others  # 35.79 GiB
    norms = 161 * 8192 * 2  # whole on every rank, and their parts
    assert parts(plan)["base weights"] == pytest.approx(whole / 8 + norms, rel=1e-4)
    assert parts(plan)["gathered by ZeRO 3, at most"] == 2 * 10**9
    assert plan.phases[0].bytes > whole  # every rank loads it whole before it is sharded
    assert plan.peak.name == "loading"
    assert plan.host_node_bytes < 100 * GIB


def test_offload_moves_bytes_to_the_host(llama: Path) -> None:
    config = settings(llama, *SHARDED, "data.max_tokens=32")
    stays, moved = plan_of(config, 2), plan_of(config, 2, offload=True)
    gone = [name for name in parts(stays) if parts(moved).get(name, 0) < parts(stays)[name]]
    assert gone == ["base weights", "adapter", "gradients", "AdamW moments"]
    lost = sum(parts(stays)[name] - parts(moved).get(name, 0) for name in gone)
    host = {part.name: part.bytes for part in moved.host}
    assert lost <= host["offloaded"] <= lost + parts(moved)["adapter"]


def test_masked_views_stand_beside_the_graph_only_where_training_keeps_it(llama: Path) -> None:
    sizes = ["data.max_tokens=64", "training.reviews_per_step=8", "evaluation.batch_size=1"]
    kept = plan_of(settings(llama, *sizes))
    parted = plan_of(settings(llama, *sizes, "training.micro_batch_size=4"))
    plain = plan_of(settings(llama, *sizes, "objective.policy_gradient_weight=0"))
    assert (kept.passes.rows, kept.passes.masked_rows, kept.passes.at) == (8, 40, "masked views")
    assert (parted.passes.rows, parted.passes.masked_rows, parted.passes.at) == (4, 16, "backward")
    assert (plain.passes.masked_rows, plain.passes.at) == (0, "backward")
    assert "adversary" not in parts(plain)


def test_views_that_an_engine_answers_are_not_read_here(llama: Path) -> None:
    sizes = ["data.max_tokens=64", "training.reviews_per_step=8", "evaluation.batch_size=1", "masking.view=delete"]
    engine = [*sizes, "rollouts.backend=vllm_server"]
    answers = plan_of(settings(llama, *engine))
    hidden = plan_of(settings(llama, *engine, "adversary.features=[hidden]"))
    drop = plan_of(settings(llama, *engine, "reward.source=probability_drop", "adversary.features=[hidden]"))
    held = plan_of(settings(llama, *engine, "objective.kl_weight=0.1"))
    assert (answers.passes.masked_rows, answers.passes.at) == (0, "backward")
    assert hidden.passes == plan_of(settings(llama, *sizes)).passes
    assert drop.passes == answers.passes
    assert held.passes.masked_rows == 8
    assert "vLLM's memory is not counted" in assumptions(answers)
    assert "vLLM" not in assumptions(plan_of(settings(llama, *sizes)))
    assert "vLLM" not in assumptions(plan_of(settings(llama, *engine, "rollouts.addresses=[http://10.0.0.1:80]")))


def test_an_engine_in_the_process_takes_its_share_of_the_gpu_while_it_answers(llama: Path) -> None:
    """It has given it back when the step's backward comes."""
    config = settings(llama, "data.max_tokens=64", "masking.view=delete", "rollouts.backend=vllm_local")
    layout = layout_of(config, 1, 1, on_gpu=True)
    free = make_plan(config, layout, on_gpu=True)
    plan = make_plan(config, layout, on_gpu=True, gpu=10.0)
    names = [part.name for part in plan.phases]
    assert names == [*(part.name for part in free.phases), "vLLM answers beside it"]
    answering, training = plan.phases[-1].bytes, plan.phases[-2].bytes
    assert training - plan.passes.training == answering - plan.passes.looking - 4 * GIB  # of 10, by memory_share = 0.4
    assert plan.peak.name == "vLLM answers beside it" and free.peak.bytes < plan.peak.bytes - 3 * GIB
    assert "not counted" in assumptions(free) and "rollouts.memory_share" in assumptions(plan)
    assert make_plan(config, layout, on_gpu=False).phases == make_plan(config, layout, on_gpu=False, gpu=10.0).phases


def test_a_base_that_is_unpacked_for_an_engine_is_whole_in_host_memory_once_a_node(llama: Path) -> None:
    engine = ["data.max_tokens=32", "masking.view=delete", "rollouts.backend=vllm_server", "training.engine=deepspeed"]
    packed, unpacked = (plan_of(settings(llama, *engine, *more), 2) for more in ([], ["rollouts.serve=dequantised"]))
    weights = sum(p.numel() for p in LlamaForCausalLM.from_pretrained(llama).parameters())
    twice = 2 * 2 * weights  # in bfloat16
    assert packed.unpacking == 0 and unpacked.unpacking == pytest.approx(twice, rel=0.01)  # a file has a header
    assert unpacked.host_node_bytes == packed.host_node_bytes + unpacked.unpacking
    assert unpacked.host == packed.host


def test_an_8_bit_base_is_not_sharded(llama: Path) -> None:
    config = settings(llama, *SHARDED, "model.quantization=int8", "data.max_tokens=32")
    quantized = 5 * (2 * 256 * 256 + 2 * 256 * 64 + 3 * 256 * 640)
    assert parts(plan_of(config, 4))["base weights"] > quantized * 5 / 4


def test_without_a_gpu_all_is_host_memory(llama: Path) -> None:
    config = settings(llama, "training.engine=deepspeed", "data.max_tokens=32")
    plan = plan_of(config, 2, on_gpu=False)
    assert plan.reserve == 0
    assert plan.host_node_bytes > 2 * plan.peak.bytes


def judged(config: Config, memory: Memory, ranks: int = 1) -> list[Verdict]:
    return verdicts(plan_of(config, ranks), memory, config, lambda c, offload: plan_of(c, ranks, offload=offload))


def test_the_first_setting_that_fits_is_proposed(llama: Path) -> None:
    config = settings(llama, "data.max_tokens=128", "training.reviews_per_step=16", "evaluation.batch_size=1")
    peak = plan_of(config).peak.bytes / GIB
    (fits,) = judged(config, Memory(gpu=peak + 0.001))
    assert fits.fits and not fits.mend
    (half,) = judged(config, Memory(gpu=peak - 0.001))
    assert not half.fits and half.mend.startswith("set training.micro_batch_size=8 (then ")
    (nothing,) = judged(config, Memory(gpu=1.0))  # less than what is set aside
    assert "no setting makes it fit" in nothing.mend


def test_settings_together_where_none_alone_is_enough(llama: Path) -> None:
    sizes = ["data.max_tokens=128", "training.reviews_per_step=1", "evaluation.batch_size=1"]
    config = settings(llama, *sizes, "model.quantization=none")
    both = settings(llama, *sizes, "model.gradient_checkpointing=true")
    limit = plan_of(both).peak.bytes / GIB + 1e-5
    (found,) = judged(config, Memory(gpu=limit))
    assert found.mend.startswith("set model.gradient_checkpointing=true model.quantization=nf4 (then ")


@pytest.mark.parametrize(
    "refused", [["masking.view=infill"], ["model.quantization=nf4", "model.quant_storage=uint8"]], ids=["view", "type"]
)
def test_no_setting_is_proposed_that_a_run_is_refused_with(refused: list[str]) -> None:
    """Only ZeRO 3 would fit, alone or with others."""
    overrides = ["training.engine=deepspeed", "training.zero_stage=2"]

    def planner(planned: Config, offload: bool) -> Any:
        peak = SimpleNamespace(bytes=GIB if planned.training.zero_stage == 3 else 9 * GIB)
        return SimpleNamespace(peak=peak, layout=Layout(2, 2, 2, deepspeed=True))

    allowed, other = (load_config(None, [*overrides, *more]) for more in ([], refused))
    assert mend_of(allowed, planner(allowed, False), Memory(gpu=2.0), planner).startswith("set training.zero_stage=3 ")
    assert "no setting makes it fit" in mend_of(other, planner(other, False), Memory(gpu=2.0), planner)


def test_too_many_ranks_for_a_node(llama: Path) -> None:
    config = settings(llama, "training.engine=deepspeed", "data.max_tokens=32")
    (found,) = judged(config, Memory(host=8.0), ranks=4)
    assert not found.fits and found.mend == "start at most 3 ranks on a node"
    plan = plan_of(config, 4)
    twice = replace(plan, unpacking=2 * plan.host_rank_bytes)
    (found,) = verdicts(twice, Memory(host=4.5 * plan.host_rank_bytes / GIB), config, lambda c, offload: plan_of(c, 4))
    assert not found.fits and found.mend == "start at most 2 ranks on a node"


def test_ranks_without_deepspeed(llama: Path) -> None:
    with pytest.raises(AfaError, match=r"--ranks 2: the plain engine is a single process"):
        layout_of(settings(llama), 2, 2, on_gpu=True)


def test_buckets_follow_the_deepspeed_file(llama: Path, tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"overlap_comm": True, "reduce_bucket_size": 1000}}))
    config = settings(llama, "training.engine=deepspeed", "training.zero_stage=2", f"training.deepspeed_file={file}")
    layout = layout_of(config, 2, 2, on_gpu=True)
    assert (layout.buckets, layout.bucket) == (2, 1000)
    without = settings(llama, "training.engine=deepspeed", "training.zero_stage=2")
    assert layout_of(without, 2, 2, on_gpu=True).buckets == 1


def test_a_narrow_terminal_loses_no_figure(llama: Path) -> None:
    """Of 40 columns the first took all: parts and phases stood there without their GiB."""
    plan = plan_of(settings(llama, "data.max_tokens=32"))
    figures = []
    for width in (120, 40):
        console = Console(file=io.StringIO(), width=width)
        print_plan(plan, [], console)
        figures.append(re.findall(r" (\d+\.\d+)$", console.file.getvalue(), re.MULTILINE))  # type: ignore[attr-defined]
    assert figures[0] == figures[1] != []


def test_table_and_json_say_the_same(llama: Path) -> None:
    plan = plan_of(settings(llama, "data.max_tokens=32"))
    found = [Verdict("GPU of a rank", False, 9.0, 8.0, "training", "set x")]
    console = Console(file=io.StringIO(), width=80)
    print_plan(plan, found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    content = json.loads(as_json(plan, found))
    assert all(name in text for name in (*content["device"], *content["host"]))
    assert sum(content["device"].values()) == content["phases"]["training"]
    assert verdict_line(found[0]) in text
    assert verdict_line(found[0]) == "GPU of a rank: does not fit, 9.0 of 8.0 GiB (training); set x"
    assert content["verdicts"][0]["fits"] is False
    assert Layout(**content["layout"]) == plan.layout
