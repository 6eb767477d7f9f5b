"""Rows on what lies between the nodes: clocks, the head's port, the way to it, and the trial all-reduce."""

from __future__ import annotations

from afa_llm.doctor.findings import Findings, RankReport
from afa_llm.doctor.rows import Row, counted, either, fail, names, ok, size, warn

CLOCK_WARN_S = 2.0
SLOW_BYTES_PER_S = {"gloo": 0.05e9, "nccl": 1e9}
"""Between nodes: half of gigabit Ethernet; for NCCL what ten-gigabit Ethernet gives. Slower looks like a wrong
interface."""
STUCK = {
    "none": "did not start",
    "started": "did not meet the others",
    "joined": "met the others, but got no result",
}


def clocks(findings: Findings) -> list[Row]:
    """Every node against the head."""
    clock_of = {node.name: node.clock for node in findings.answered if node.clock}
    head = findings.nodes[0]
    if not head.clock or len(clock_of) < 2:
        return []
    rows, largest = [], 0.0
    for node, clock in clock_of.items():
        offset = clock.offset_s - head.clock.offset_s
        uncertainty = clock.uncertainty_s + head.clock.uncertainty_s
        largest = max(largest, abs(offset))
        if abs(offset) - uncertainty > CLOCK_WARN_S:
            rows.append(
                warn(
                    "clocks",
                    f"{node} is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} {head.name}",
                    "start chrony or systemd-timesyncd there: file times and logs of the nodes will not agree",
                )
            )
    return either(rows, ok("clocks", f"within {largest:.2f} s of {head.name}"))


def master_port(findings: Findings) -> list[Row]:
    """Whether the ranks can meet there: free, and at an address of the head node."""
    master, head = findings.master, findings.nodes[0]
    check = "master port"
    if head.facts is None:
        return [fail(check, f"not tried: the head node {head.name} does not answer", "see nodes")]
    if not master.address:
        return [fail(check, f"{head.name} has no network address", "give one with --master-addr")]
    place = f"{master.address}:{master.port}"
    if not master.trouble:
        return [ok(check, f"{place} is free on {head.name}")]
    found = f"{place} on {head.name}: {master.trouble.lower()}"
    if not findings.with_hostfile:
        return [warn(check, found, "launch/single_node.sh takes a free one; the bare launcher needs --master_port")]
    if "assign" in master.trouble:
        return [fail(check, found, "give an address of the head node: --master-addr here, --master_addr there")]
    return [fail(check, found, "another port: --master-port here, --master_port for the launcher")]


def head_reachable(findings: Findings) -> list[Row]:
    """Name resolution and a TCP connection from every node to the head's address and port."""
    check, head, master = "way to the head", findings.nodes[0], findings.master
    if not findings.with_hostfile or head.facts is None or not master.address:
        return []
    if master.trouble:
        return [warn(check, "not tried: nothing could listen at the master port", "see master port")]
    rows = []
    for node in findings.answered:
        if node.reached and node.reached.trouble:
            rows.append(
                fail(
                    check,
                    f"{node.name} to {master.address}:{master.port}: {node.reached.trouble}",
                    "open the port between the nodes (firewall), or give an address that all reach: --master-addr",
                )
            )
    times = [node.reached.seconds for node in findings.answered if node.reached and node.reached.seconds is not None]
    if not times and not rows:
        return [warn(check, "not tried: the nodes fell silent before", "see nodes")]
    slowest = f", in {1000 * max(times):.1f} ms at most" if times else ""
    reached = f"{counted(len(times), 'node')} reach{'es' if len(times) == 1 else ''} {master.address}:{master.port}"
    return either(rows, ok(check, reached + slowest))


def all_reduce(findings: Findings) -> list[Row]:
    """A real sum over all processes: it ends, it is right, and how fast it is."""
    check, trial = "all-reduce", findings.trial
    if trial is None:
        return [fail(check, "not tried: the ranks have no place to meet", "see the rows above")]
    ranks = [rank for node in findings.nodes for rank in node.ranks or ()]
    kind = f"{trial.backend}, {counted(trial.world, 'process')}"
    mend = _network_mend(trial.backend)
    stuck = {
        node.name: next(rank for rank in node.ranks if not _done(rank))
        for node in findings.nodes
        if node.ranks and not all(map(_done, node.ranks))
    }
    if stuck or len(ranks) < trial.world:
        rows = [fail(check, f"{kind}: {_story(node, rank)}", mend) for node, rank in stuck.items()]
        return rows or [fail(check, f"{kind}: a node fell silent during it", "see nodes")]
    if not all(rank.correct for rank in ranks):
        wrong = [node.name for node in findings.nodes if not all(rank.correct for rank in node.ranks or ())]
        return [fail(check, f"{kind}: a wrong sum on {names(wrong)}", "a broken link or GPU: take the node out")]
    seconds = max(rank.seconds or 0.0 for rank in ranks)
    speed = trial.bytes / seconds if seconds else 0.0
    part = len(findings.answered) < len(findings.nodes)
    told = f"{kind}{' of the nodes that answer' if part else ''}: "
    if trial.world == 1:
        return [ok(check, f"{kind}: starts; nothing to exchange")]
    told += f"{size(trial.bytes)} in {1000 * seconds:.1f} ms, {speed / 1e9:.2f} GB/s"
    if len(findings.nodes) > 1 and speed < SLOW_BYTES_PER_S[trial.backend]:
        return [warn(check, f"{told}: slow for a network between nodes", mend)]
    return [ok(check, told)]


def _done(rank: RankReport) -> bool:
    return rank.stage == "reduced" and rank.error is None


def _story(node: str, rank: RankReport) -> str:
    where = STUCK.get(rank.stage, "failed at the end")
    return f"rank {rank.rank} on {node} {where}: {rank.error or 'no reason given'}"


def _network_mend(backend: str) -> str:
    if backend == "nccl":
        return (
            "NCCL_SOCKET_IFNAME = the interface that joins the nodes; NCCL_DEBUG=INFO tells more; NCCL_IB_DISABLE=1 "
            "shows whether InfiniBand is to blame"
        )
    return "GLOO_SOCKET_IFNAME = the interface that joins the nodes (ip -br address); open all ports between them"
