"""Findings in, rows out: the order of the checks. Pure."""

from __future__ import annotations

import re

from afa_llm.doctor.findings import Findings
from afa_llm.doctor.judge_files import disk_space, inputs, output_folder
from afa_llm.doctor.judge_machines import gpu_memory, gpus, limits, shared_memory, versions
from afa_llm.doctor.judge_network import all_reduce, clocks, head_reachable, master_port
from afa_llm.doctor.judge_settings import environment, interfaces, threads
from afa_llm.doctor.rows import Row, by_text, counted, either, fail, names, ok, warn

OBEYED = re.compile(r"""[\s"'\\$`;&|<>()*?{}%\[\]]""")
"""By a shell, and % by pdsh; as in launch/hostfile.sh."""
MISTAKEN = re.compile(r"[^:]+:(?!:)|.*@.*:")
"""IPv6 addresses that pdsh reads as WAY:HOST; those that begin with one part, as fe80::1, it reads."""


def judge(findings: Findings) -> list[Row]:
    """All rows, in reading order; a check that does not apply has none."""
    rows = nodes(findings)
    if findings.answered:
        for check in (
            versions,
            gpus,
            gpu_memory,
            threads,
            environment,
            interfaces,
            shared_memory,
            limits,
            inputs,
            output_folder,
            disk_space,
            clocks,
            master_port,
            head_reachable,
            all_reduce,
        ):
            rows += check(findings)
    return rows


def nodes(findings: Findings) -> list[Row]:
    """Who answers, whether two names are one machine, and what is in the launcher's way to them."""
    rows = []
    for mend in dict.fromkeys(node.mend for node in findings.nodes):
        silent = {node.name: node.trouble for node in findings.nodes if node.trouble and node.mend == mend}
        rows += by_text("nodes", "fail", silent, mend)
    machines: dict[tuple[str, str], list[str]] = {}
    for node in findings.answered:
        assert node.facts
        machines.setdefault((node.facts.boot_id, node.facts.hostname), []).append(node.name)
    for (_, hostname), twins in machines.items():
        if len(twins) > 1:
            rows.append(
                warn(
                    "nodes",
                    f"{names(twins)} are one machine ({hostname})",
                    "list each machine once, with all its slots; its ports and GPUs are there once",
                )
            )
    rows += _launcher(findings)
    if findings.with_hostfile:
        slots = sum(node.processes for node in findings.nodes)
        told = f"{counted(len(findings.nodes), 'node')}, {counted(slots, 'slot')}, all answer"
    else:
        facts = findings.answered[0].facts if findings.answered else None
        told = f"this machine alone ({facts.hostname if facts else '?'})"
    return either(rows, ok("nodes", told))


def _launcher(findings: Findings) -> list[Row]:
    """What keeps the launcher from nodes that the doctor reaches."""
    rows = []
    if len(findings.nodes) > 1 and not findings.launcher_found:
        rows.append(
            warn(
                "nodes",
                "pdsh, the deepspeed launcher's way to several nodes, is not installed here",
                "install pdsh, or start with --launcher or --no_ssh",
            )
        )
    torn = [repr(path) for path in findings.launcher_paths if OBEYED.search(path)]
    if torn:
        rows.append(
            fail(
                "nodes",
                f"the deepspeed launcher hands {names(torn)} to the nodes' shells without quotes",
                "work in a path without blanks and other signs that a shell obeys",
            )
        )
    addresses = [node.name for node in findings.nodes if MISTAKEN.match(node.name)]
    if addresses:
        rows.append(
            warn(
                "nodes",
                f"pdsh takes the beginning of {names(addresses)} for a way to connect",
                "list a name or an IPv4 address; or start with --no_ssh",
            )
        )
    return rows
