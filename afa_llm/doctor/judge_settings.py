"""Rows on environment variables and threads."""

from __future__ import annotations

from afa_llm.doctor.findings import Facts, Findings
from afa_llm.doctor.judge_machines import facts_of
from afa_llm.doctor.rows import Row, by_text, differ, either, groups, is_true, least, names, ok, warn

COMPARED = (
    "NCCL_IB_DISABLE",
    "NCCL_IB_HCA",
    "NCCL_P2P_DISABLE",
    "DS_ACCELERATOR",
    "ACCELERATE_USE_CPU",
    "OMP_NUM_THREADS",
    "HF_HUB_OFFLINE",
    "AFA_DATA",
)
"""Should be set alike everywhere. The interfaces have a check of their own; visible devices may differ."""
LEFT_OVER = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
INTERFACES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


def environment(findings: Findings) -> list[Row]:
    """Variables that differ between nodes, or that spoil a run in silence."""
    facts, rows = facts_of(findings), []
    for name in COMPARED:
        value_of = {node: fact.environment.get(name, "(unset)") for node, fact in facts.items()}
        if differ(value_of):
            rows.append(
                warn("environment", f"{name}: {groups(value_of)}", f"a line {name}=… in .deepspeed_env sets it for all")
            )
    for name in LEFT_OVER:
        having = [node for node, fact in facts.items() if name in fact.environment]
        if having:
            rows.append(
                warn(
                    "environment",
                    f"{name} is set on {names(having)}",
                    f"unset {name}: without the launcher, `afa` takes it for one rank of a job",
                )
            )
    name = "ACCELERATE_USE_CPU"
    having = [node for node, fact in facts.items() if is_true(fact.environment.get(name))]
    if having:
        rows.append(
            warn(
                "environment",
                f"{name} is set on {names(having)}",
                f"unset {name}: with it, Hugging Face's Trainer drops DeepSpeed without a word",
            )
        )
    shared = {name: value for fact in facts.values() for name, value in fact.environment.items()}
    told = ", ".join(f"{name}={value}" for name, value in shared.items()) or "none of those that bite is set"
    return either(rows, ok("environment", told))


def interfaces(findings: Findings) -> list[Row]:
    """NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME: there on each node, and alike; gloo's default where they are unset."""
    facts, rows = facts_of(findings), []
    for name in INTERFACES:
        wrong = {
            node: f"{name}={fact.environment[name]}, but it has {', '.join(fact.interfaces)}"
            for node, fact in facts.items()
            if fact.environment.get(name) and not _present(name, fact.environment[name], fact)
        }
        rows += by_text(
            "interfaces", "fail", wrong, f"set {name} to the interface that joins the nodes (ip -br address)"
        )
        value_of = {node: fact.environment.get(name, "(unset)") for node, fact in facts.items()}
        if differ(value_of):
            rows.append(
                warn(
                    "interfaces",
                    f"{name}: {groups(value_of)}",
                    "fine only where the interfaces are really called so; else one value in .deepspeed_env",
                )
            )
    rows += _gloo_on_loopback(findings, facts)
    if len(facts) == 1 and not rows:
        return []
    named = {
        f"{name}={fact.environment[name]}" for fact in facts.values() for name in INTERFACES if name in fact.environment
    }
    return either(rows, ok("interfaces", ", ".join(sorted(named)) or "none is named: gloo and NCCL choose their own"))


def threads(findings: Findings) -> list[Row]:
    """Processes × threads against the cores of each node. Only a hostfile says how many processes there will be."""
    busy = {
        node.name: f"{node.slots} processes × {findings.threads} thread(s) on {node.facts.cores} core(s)"
        for node in findings.answered
        if node.slots and node.facts and node.slots * findings.threads > node.facts.cores
    }
    mend = "fewer slots or a smaller run.threads: threads that wait for each other make it many times slower"
    rows = by_text("cores", "warn", busy, mend)
    if not findings.with_hostfile:
        return []
    cores = [node.facts.cores for node in findings.answered if node.facts]
    return either(rows, ok("cores", f"{least(cores)} for each node's processes"))


def _gloo_on_loopback(findings: Findings, facts: dict[str, Facts]) -> list[Row]:
    """gloo listens where the own host name points to; 127.0.1.1 there is a common entry of /etc/hosts."""
    if len({fact.boot_id for fact in facts.values()}) == 1 or any(fact.gpus for fact in facts.values()):
        return []
    lost = [
        node
        for node, fact in facts.items()
        if (fact.own_address or "127.").startswith("127.") and "GLOO_SOCKET_IFNAME" not in fact.environment
    ]
    if not lost:
        return []
    return [
        warn(
            "interfaces",
            f"the own host name does not lead to a network address on {names(lost)}: gloo would listen on loopback",
            "set GLOO_SOCKET_IFNAME in .deepspeed_env, or mend /etc/hosts",
        )
    ]


def _present(name: str, value: str, facts: Facts) -> bool:
    """Whether it leads to interfaces that are there. gloo wants each; NCCL one, and takes prefixes, `=` for whole names
    and `^` for exclusion."""
    if name == "GLOO_SOCKET_IFNAME":
        return all(part in facts.interfaces for part in value.split(","))
    if value.startswith("^"):
        return True
    if value.startswith("="):
        return any(part in facts.interfaces for part in value.removeprefix("=").split(","))
    return any(there.startswith(part) for part in value.split(",") if part for there in facts.interfaces)
