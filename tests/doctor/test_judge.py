"""Every row: well on healthy nodes, and with the right verdict, words and mend for each planted fault."""

from __future__ import annotations

import pytest
from planted_faults import PLANTED, ranks
from planted_findings import (
    alone,
    facts,
    gpu,
    healthy,
    node,
    with_all_facts,
    with_second,
    with_second_facts,
)

from afa_llm.doctor.findings import Clock, Findings, Master
from afa_llm.doctor.judge import judge
from afa_llm.doctor.rows import Row, worst


def troubles(findings: Findings) -> list[Row]:
    return [row for row in judge(findings) if row.verdict != "ok"]


@pytest.mark.parametrize("what", PLANTED)
def test_planted_fault(what: str) -> None:
    findings, check, verdict, found, mend = PLANTED[what]
    rows = [row for row in troubles(findings) if row.check == check]
    assert [(row.verdict, found in row.found, mend in row.mend) for row in rows] == [(verdict, True, True)], rows


def test_healthy_nodes_have_one_well_row_of_each_check() -> None:
    rows = judge(healthy())
    assert troubles(healthy()) == []
    assert [row.check for row in rows] == [
        "nodes",
        "versions",
        "GPUs",
        "GPU memory",
        "cores",
        "environment",
        "interfaces",
        "/dev/shm",
        "limits",
        "inputs",
        "output folder",
        "disk space",
        "clocks",
        "master port",
        "way to the head",
        "all-reduce",
    ]
    told = {row.check: row.found for row in rows}
    assert told["nodes"] == "3 nodes, 6 slots, all answer"
    assert told["GPUs"] == "2 × A100 on each node"
    assert told["all-reduce"] == "nccl, 6 processes: 16 MiB in 4.0 ms, 4.19 GB/s"


def test_one_machine_has_no_rows_on_other_nodes() -> None:
    rows = judge(alone())
    assert worst(rows) == "ok"
    assert not {"clocks", "way to the head", "interfaces", "cores", "GPU memory"} & {row.check for row in rows}
    taken = alone(master=Master(address="127.0.0.1", port=29500, trouble="Address already in use"))
    assert [(row.check, row.verdict) for row in troubles(taken)] == [("master port", "warn")]


def test_a_clock_is_late_only_beyond_what_the_request_leaves_open() -> None:
    assert troubles(with_second(clock=Clock(offset_s=103.5, uncertainty_s=1.6))) == []


def test_equal_code_is_equal_whether_installed_or_not() -> None:
    assert troubles(with_second_facts(afa_llm="not installed, code abc")) == []


def test_nccl_takes_prefixes_whole_names_and_exclusions() -> None:
    for value in ("eth", "=eth0", "^docker", "ib0,eth"):
        assert troubles(with_all_facts(environment={"NCCL_SOCKET_IFNAME": value})) == [], value
    for value in ("=eth", "ib"):
        assert worst(troubles(with_all_facts(environment={"NCCL_SOCKET_IFNAME": value}))) == "fail", value


def test_gloo_takes_whole_names_and_needs_each() -> None:
    for value, known in (("eth0", True), ("lo,eth0", True), ("eth0,ib0", False), ("=eth0", False), ("eth", False)):
        environment = {"GLOO_SOCKET_IFNAME": value}
        rows = [row for row in troubles(with_all_facts(environment=environment)) if row.check == "interfaces"]
        assert [row.verdict for row in rows] == ([] if known else ["fail"]), value


def test_interface_row_names_what_is_set() -> None:
    rows = judge(with_all_facts(environment={"NCCL_SOCKET_IFNAME": "eth0"}))
    assert [row.found for row in rows if row.check == "interfaces"] == ["NCCL_SOCKET_IFNAME=eth0"]


def test_no_bfloat16_does_not_matter_to_a_float32_run() -> None:
    old = with_all_facts(gpus=(gpu(bfloat16=False),) * 2).model_copy(update={"dtype": "float32"})
    assert troubles(old) == []


def test_one_node_without_bfloat16_slows_all_where_the_type_is_automatic() -> None:
    mixed = with_second_facts(gpus=(gpu(bfloat16=False),) * 2).model_copy(update={"dtype": "auto"})
    (row,) = troubles(mixed)
    assert (row.check, row.verdict) == ("GPUs", "warn") and "b: with model.dtype=auto all ranks" in row.found
    equal = with_all_facts(gpus=(gpu(bfloat16=False),) * 2).model_copy(update={"dtype": "auto"})
    assert troubles(equal) == []


def test_gpus_beyond_the_slots_are_not_looked_at() -> None:
    assert troubles(with_second_facts(gpus=(gpu(), gpu(), gpu(free_bytes=0)))) == []


def test_the_head_alone_silent_leaves_the_others_judged() -> None:
    nodes = [node("a", facts=None, trouble="timed out"), node("b", 2), node("c", 4)]
    rows = judge(healthy(nodes, trial=None))
    found = {row.check: row for row in rows if row.verdict == "fail"}
    assert "a: timed out" in found["nodes"].found
    assert "head node a does not answer" in found["master port"].found
    assert {row.check for row in rows if row.verdict == "ok"} >= {"versions", "GPUs", "output folder"}


def test_nobody_answers() -> None:
    silent = [node(name, facts=None, trouble="timed out") for name in "abc"]
    assert [(row.check, row.found) for row in judge(healthy(silent, trial=None))] == [("nodes", "a, b, c: timed out")]


def test_no_node_has_shared_memory() -> None:
    assert [row.found for row in troubles(with_all_facts(shared_memory_bytes=None))] == ["a, b, c: not there"]


def test_one_gpu_has_nothing_to_exchange() -> None:
    one = node("this machine", slots=None, facts=facts("vm", gpus=(gpu(),)), ranks=ranks(0)[:1])
    findings = healthy([one], with_hostfile=False)
    assert findings.trial
    findings.trial.world = 1
    assert judge(findings)[-1].found == "nccl, 1 process: starts; nothing to exchange"


def test_a_wrong_number_of_slots_does_not_flood_a_node() -> None:
    """The trial starts real processes, each of which loads torch."""
    assert node("a", slots=4096, facts=facts("a", cores=16)).on_trial == 16
    assert node("a", slots=8, facts=facts("a", cores=1, gpus=(gpu(),) * 8)).on_trial == 8
    assert node("a", slots=2, facts=facts("a", cores=1)).on_trial == 2
