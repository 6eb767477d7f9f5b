"""Settings that are fine alone and wrong together: each is found, once, and names a fix that works."""

from __future__ import annotations

import pytest

from afa_llm.config import Config
from afa_llm.config_checks import contradictions
from afa_llm.config_loading import load_config
from afa_llm.errors import AfaError

ENGINE = ["rollouts.backend=vllm_server", "masking.view=delete"]
ALONE = ["training.engine=deepspeed", "training.zero_stage=3"]
CASES: dict[str, tuple[list[str], str, list[str]]] = {
    # what is set, how the message begins, what mends it
    "odd masks both ways": (
        ["masking.direction=both", "masking.masks_per_review=5"],
        "masking.masks_per_review = 5: ",
        ["masking.masks_per_review=6"],
    ),
    "two masks both ways": (
        ["masking.direction=both", "masking.masks_per_review=2"],
        "masking.masks_per_review = 2: the leave-one-out baseline needs at least 4 with direction both",
        ["masking.masks_per_review=4"],
    ),
    "a name in another encoding": (
        ["run.output_dir=r\udcff"],
        "run.output_dir = 'r\\udcff': holds bytes that are no UTF-8",
        ["run.output_dir=r"],
    ),
    "a variable that no shell replaced": (
        ["run.output_dir=$HOME/runs"],
        "run.output_dir = $HOME/runs: $HOME is not replaced in settings",
        ["run.output_dir=~/runs"],
    ),
    "a variable in a folder to write to": (
        ["evaluation.before_folder=$HOME/kept"],
        "evaluation.before_folder = $HOME/kept: $HOME is not replaced in settings",
        ["evaluation.before_folder=~/kept"],
    ),
    "a variable in a folder to send from": (
        ["rollouts.adapter_folder=$SHARED/adapters"],
        "rollouts.adapter_folder = $SHARED/adapters: $SHARED is not replaced in settings",
        ["rollouts.adapter_folder=/shared/adapters"],
    ),
    "a variable in an interpreter": (
        ["rollouts.vllm_python=$HOME/vllm/bin/python"],
        "rollouts.vllm_python = $HOME/vllm/bin/python: $HOME is not replaced in settings",
        ["rollouts.vllm_python=~/vllm/bin/python"],
    ),
    "a variable in a set to measure on": (
        ["data.evaluation=[{path: '/data/${SETS}/dev.csv'}]"],
        "data.evaluation.0.path = /data/${SETS}/dev.csv: ${SETS} is not replaced in settings",
        ["data.evaluation.0.path=/data/dev.csv"],
    ),
    "sides of no pairs": (
        ["data.evaluation=[{path: dev.csv, side_column: side}]"],
        "data.evaluation.0.side_column = side: it says what a review is in its pair",
        ["data.evaluation.0.pair_column=pair"],
    ),
    "one mask one way": (
        ["masking.direction=attended", "masking.masks_per_review=1"],
        "masking.masks_per_review = 1: the leave-one-out baseline needs at least 2 with direction attended",
        ["masking.masks_per_review=2"],
    ),
    "an engine inside a rank": (
        ["rollouts.backend=vllm_local", "masking.view=infill", "training.engine=deepspeed"],
        "rollouts.backend = vllm_local: the engine is for one process",
        ["rollouts.backend=vllm_server"],
    ),
    "addresses of an engine in this process": (
        ["rollouts.backend=vllm_local", "masking.view=infill", "rollouts.addresses=['http://127.0.0.1:1']"],
        "rollouts.backend = vllm_local: rollouts.addresses",
        ["rollouts.backend=vllm_server"],
    ),
    "words proposed under ZeRO-3": (
        ["masking.view=infill", "training.engine=deepspeed", "training.zero_stage=3"],
        "masking.view = infill: under ZeRO-3",
        ["training.zero_stage=2"],
    ),
    "feedback on random masks": (
        ["masking.direction=random"],
        "masking.direction = random: ",
        ["objective.policy_gradient_weight=0"],
    ),
    "the size of a random mask for the policy's": (
        ["objective.masked_rate=0.5"],
        "objective.masked_rate = 0.5: the size of a random mask, and objective.masked_by = policy takes the policy's",
        ["objective.masked_by=random"],
    ),
    "unattended words shown": (
        ["masking.direction=unattended", "objective.shown_task_weight=1"],
        "objective.shown_task_weight = 1.0: shows the words of an attended mask, and masking.direction = unattended",
        ["masking.direction=attended"],
    ),
    "an adversary that never learns": (
        ["adversary.steps_per_round=0"],
        "adversary.steps_per_round = 0: ",
        ["reward.source=probability_drop"],
    ),
    "alarms that always sound": (
        ["adversary.auroc_low=0.8", "adversary.auroc_high=0.7"],
        "adversary.auroc_low = 0.8: ",
        ["adversary.auroc_low=0.6"],
    ),
    "no layer": (["attention.layers=[]"], "attention.layers = []: ", ["attention.layers=last_half"]),
    "no target": (["lora.target_modules=[]"], "lora.target_modules = []: ", ["lora.target_modules=all-linear"]),
    "one label": (["data.labels={a: [1]}"], "data.labels = ['a']: ", ["data.labels={a: [1], b: [2]}"]),
    "a label without values": (["data.labels={a: [1], b: []}"], "data.labels.b = []: ", ["data.labels.b=[2]"]),
    "a value with two labels": (
        ["data.labels={a: [1, x], b: [x, 2]}"],
        "data.labels.b = 'x': the same raw value means 'a' too",
        ["data.labels.b=[2]"],
    ),
    "betas of one": (["training.betas=[0.9, 1]"], "training.betas = [0.9, 1.0]: ", ["training.betas=[0.9, 0.95]"]),
    "the best of nothing": (
        ["training.adapter=best"],
        "training.adapter = best: ",
        ["data.validation={path: 'builtin:planted', split: validation}"],
    ),
    "validation on nothing": (
        ["training.validate_every=5"],
        "training.validate_every = 5: ",
        ["data.validation.path=builtin:planted"],
    ),
    "ZeRO in one process": (["training.zero_stage=2"], "training.zero_stage = 2: ", ["training.engine=deepspeed"]),
    "a DeepSpeed file for the plain engine": (
        ["training.deepspeed_file=ds.json"],
        "training.deepspeed_file = ds.json: ",
        ["training.engine=deepspeed"],
    ),
    "bytes under ZeRO-3": (
        [*ALONE, "model.quant_storage=uint8"],
        "model.quant_storage = uint8: ",
        ["model.quant_storage=bfloat16"],
    ),
    "a headline that is not measured": (
        ["evaluation.calibrations=[batch]"],
        "evaluation.headline_calibration = none: ",
        ["evaluation.headline_calibration=batch"],
    ),
    "all words removed": (
        ["evaluation.focus_fractions=[0.5, 1]"],
        "evaluation.focus_fractions = [0.5, 1.0]: ",
        ["evaluation.focus_fractions=[0.5]"],
    ),
    "a share twice": (
        ["evaluation.focus_fractions=[0.1, 0.2, 0.1]"],
        "evaluation.focus_fractions = [0.1, 0.2, 0.1]: names 0.1 twice",
        ["evaluation.focus_fractions=[0.1, 0.2]"],
    ),
    "a calibration twice": (
        ["evaluation.calibrations=[none, none]"],
        "evaluation.calibrations = ['none', 'none']: names 'none' twice",
        ["evaluation.calibrations=[none]"],
    ),
    "no words removed": (["evaluation.focus_fractions=[0]"], "evaluation.focus_fractions = [0.0]: ", []),
    "a template twice": (
        ["prompts.evaluation=[a, b, a]"],
        "prompts.evaluation = ['a', 'b', 'a']: names 'a' twice",
        ["prompts.evaluation=[a, b]"],
    ),
    "data sets of one name": (
        ["data.evaluation=[{path: x/a.csv}, {path: y/a.csv}]"],
        "data.evaluation: two data sets are called 'a'",
        ["data.evaluation=[{path: x/a.csv}, {path: y/a.csv, name: b}]"],
    ),
    "an engine for blocked words": (
        ["rollouts.backend=vllm_server"],
        "masking.view = block: an engine answers prompts",
        ["masking.view=delete"],
    ),
    "an adapter too large for the engine": ([*ENGINE, "lora.rank=600"], "lora.rank = 600: ", ["lora.rank=512"]),
    "answers older than they may be": (
        [*ENGINE, "rollouts.sync_every=3", "rollouts.reader=tuned"],
        "rollouts.sync_every = 3: answers would be up to 2 steps old",
        ["rollouts.staleness=2"],
    ),
    "a warning after the end": (
        [*ENGINE, "rollouts.probe_warn=0.02"],
        "rollouts.probe_warn = ",
        ["rollouts.probe_fail=0.03"],
    ),
    "devices for other replicas": (
        [*ENGINE, "rollouts.devices=['0', '1']"],
        "rollouts.devices = ['0', '1']: ",
        ["rollouts.replicas=2"],
    ),
    "nothing to unpack": (
        [*ENGINE, "rollouts.serve=dequantised", "model.quantization=none"],
        "rollouts.serve = dequantised: model.quantization = none",
        ["rollouts.serve=original"],
    ),
    "a port for a server of ours": (
        [*ENGINE, "rollouts.server_arguments=['--max-num-seqs', '8', '--port=8000']"],
        "rollouts.server_arguments: --port=8000 is chosen for each server by the run",
        ["rollouts.server_arguments=['--max-num-seqs', '8']"],
    ),
    "an engine twice": (
        [*ENGINE, "rollouts.addresses=['http://10.0.0.1:80', 'http://10.0.0.1:80/']"],
        "rollouts.addresses: http://10.0.0.1:80 stands there twice",
        ["rollouts.addresses=['http://10.0.0.1:80', 'http://10.0.0.1:81/']"],
    ),
    "no address": ([*ENGINE, "rollouts.addresses=['10.0.0.1:80']"], "rollouts.addresses = ", ["rollouts.addresses=[]"]),
    "others' engines cannot serve our base": (
        [*ENGINE, "rollouts.addresses=['http://10.0.0.1:80']", "rollouts.serve=dequantised"],
        "rollouts.serve = dequantised: engines at rollouts.addresses",
        ["rollouts.serve=original"],
    ),
    "more of ours beside others' engines": (
        [*ENGINE, "rollouts.addresses=['http://10.0.0.1:80']", "rollouts.replicas=2"],
        "rollouts.replicas = 2: engines at rollouts.addresses serve as they were started",
        ["rollouts.replicas=1"],
    ),
    "arguments for others' engines": (
        [*ENGINE, "rollouts.addresses=['http://10.0.0.1:80']", "rollouts.server_arguments=['--max-num-seqs=8']"],
        "rollouts.server_arguments = ['--max-num-seqs=8']: engines at rollouts.addresses",
        ["rollouts.server_arguments=[]"],
    ),
    "devices for others' engines": (
        [*ENGINE, "rollouts.addresses=['http://10.0.0.1:80']", "rollouts.devices=['0']"],
        "rollouts.devices = ['0']: engines at rollouts.addresses",
        ["rollouts.devices=[]"],
    ),
    "measuring through no engine": (
        ["evaluation.through_engine=true"],
        "evaluation.through_engine = True: ",
        ["rollouts.backend=vllm_server", "masking.view=delete"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_contradiction_is_found_once_and_its_fix_works(name: str) -> None:
    given, beginning, fix = CASES[name]
    with pytest.raises(AfaError) as error:
        load_config(None, given)
    lines = str(error.value).splitlines()
    assert sum(line.startswith(beginning) for line in lines) == 1, lines
    assert all(line.split(" = ")[0].split(":")[0] == beginning.split(" = ")[0].split(":")[0] for line in lines)
    if fix:
        assert contradictions(load_config(None, [*given, *fix])) == []


@pytest.mark.parametrize(
    "address",
    [
        *("http://", "http://host:port", "http://[::1", "http://a b:80", "http://host/v1", "http://me:pw@host:80"),
        *("http://engine..cluster:80", f"http://{'long' * 16}.cluster:80"),
    ],
)
def test_an_address_that_no_request_can_go_to_is_told(address: str) -> None:
    with pytest.raises(AfaError, match=r"rollouts.addresses = .*: no address; write http://host:port"):
        load_config(None, [*ENGINE, f"rollouts.addresses=['{address}']"])


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(AfaError) as error:
        load_config(None, [*ENGINE, "rollouts.addresses=['http://me:secret@10.0.0.1:80']"])
    assert "'…@10.0.0.1:80': no address" in str(error.value)
    assert "secret" not in str(error.value)


def test_the_defaults_agree_with_each_other() -> None:
    assert contradictions(Config()) == []


@pytest.mark.parametrize(
    "overrides",
    [
        ["masking.direction=random", "masking.masks_per_review=1", "objective.policy_gradient_weight=0"],
        ["masking.direction=attended", "masking.masks_per_review=3"],
        ["objective.policy_gradient_weight=0", "adversary.steps_per_round=0", "masking.masks_per_review=2"],
        [*ALONE, "model.quantization=none", "model.quant_storage=uint8"],
        [*ALONE, "training.deepspeed_file=ds.json"],
        ["rollouts.backend=vllm_server", "objective.policy_gradient_weight=0"],
        [*ENGINE, "rollouts.addresses=['http://10.0.0.1:80', 'https://engine.example/', 'http://[::1]:8000']"],
    ],
)
def test_what_only_looks_like_a_contradiction(overrides: list[str]) -> None:
    load_config(None, overrides)


def test_all_contradictions_are_told_together() -> None:
    with pytest.raises(AfaError) as error:
        load_config(
            None,
            ["training.zero_stage=2", "masking.direction=both", "masking.masks_per_review=5", "data.labels={a: [1]}"],
        )
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize("setting", ["training.deepspeed_file", "data.train.side_column"])
def test_a_contradiction_of_a_name_in_another_encoding_is_told(setting: str) -> None:
    """Its own message held the bytes, and pydantic broke over them."""
    with pytest.raises(AfaError, match=rf"{setting} = r\\udcff: ") as told:
        load_config(None, [f"{setting}=r\udcff"])
    assert f"{setting} = 'r\\udcff': holds bytes that are no UTF-8" in str(told.value)
