"""Rows on what the machines are: versions, GPUs, memory, limits."""

from __future__ import annotations

from afa_llm.doctor.findings import Facts, Findings
from afa_llm.doctor.rows import Row, by_text, differ, either, fail, groups, least, names, ok, size, warn

FREE_GPU_SHARE = 0.8
SHARED_MEMORY_BYTES = 2**30
"""NCCL's buffers between the GPUs of a node, and data workers, live there; containers start with 64 MiB."""
OPEN_FILES, OPEN_FILES_PER_RANK = 1024, 64
LOCKED_MEMORY_BYTES = 2**30
"""InfiniBand pins its buffers; distributions allow 64 KiB to 8 MiB."""


def facts_of(findings: Findings) -> dict[str, Facts]:
    return {node.name: node.facts for node in findings.answered if node.facts}


def versions(findings: Findings) -> list[Row]:
    """The stack, equal on all nodes."""
    facts, rows = facts_of(findings), []
    first = next(iter(facts.values()))
    for package in sorted({package for fact in facts.values() for package in fact.packages}):
        value_of = {node: fact.packages.get(package) or "missing" for node, fact in facts.items()}
        if "missing" in value_of.values():
            lacking = [node for node, value in value_of.items() if value == "missing"]
            rows.append(
                fail("versions", f"{package} is missing on {names(lacking)}", "install what afa-llm depends on there")
            )
        elif differ(value_of):
            rows.append(fail("versions", f"{package}: {groups(value_of)}", f"install one version of {package}"))
    for node, fact in facts.items():
        for package, said in fact.unfit.items():
            mend = f"pip uninstall -y {package}: nothing here needs it"
            rows.append(fail("versions", f"{package} on {node} does not fit its torch: {said}", mend))
    code_of = {node: fact.afa_llm for node, fact in facts.items()}
    if differ({node: code.split()[-1] for node, code in code_of.items()}):
        rows.append(fail("versions", f"afa-llm: {groups(code_of)}", "bring the same code to every node"))
    other = {
        "Python": {node: fact.python for node, fact in facts.items()},
        "CUDA of torch": {node: fact.cuda or "none" for node, fact in facts.items()},
        "NCCL": {node: fact.nccl or "none" for node, fact in facts.items()},
    }
    for what, value_of in other.items():
        if differ(value_of):
            rows.append(fail("versions", f"{what}: {groups(value_of)}", "use the same environment on every node"))
    drivers = {node: fact.driver or "none" for node, fact in facts.items()}
    if differ(drivers):
        rows.append(warn("versions", f"NVIDIA driver: {groups(drivers)}", "install one driver version"))
    shown = [f"afa-llm {first.afa_llm}", f"python {first.python}"] + [
        f"{name} {first.packages[name]}" for name in first.packages
    ]
    if first.cuda and first.gpus:
        shown += [f"CUDA {first.cuda}", f"NCCL {first.nccl}"]
    return either(rows, ok("versions", ", ".join(shown)))


def gpus(findings: Findings) -> list[Row]:
    """As many as there are slots, alike, fit for the compute type."""
    facts, rows = facts_of(findings), []
    blind = [node for node, fact in facts.items() if fact.driver and not fact.gpus]
    if blind:
        rows.append(
            fail(
                "GPUs",
                f"an NVIDIA driver but no GPU that torch can use on {names(blind)}",
                "install a CUDA build of torch that the driver is new enough for; look at CUDA_VISIBLE_DEVICES",
            )
        )
    if not any(fact.gpus for fact in facts.values()):
        return either(rows, ok("GPUs", "none: ranks run on CPU and talk over gloo"))
    bare = [node for node, fact in facts.items() if not fact.gpus and node not in blind]
    if bare:
        rows.append(fail("GPUs", f"none on {names(bare)}, but on other nodes", "take these nodes out of the hostfile"))
    for node in findings.answered:
        seen = len(facts[node.name].gpus)
        if node.slots and 0 < seen < node.slots:
            rows.append(
                fail(
                    "GPUs",
                    f"{node.name} sees {seen}, the hostfile says slots={node.slots}",
                    f"set slots={seen}, or look at CUDA_VISIBLE_DEVICES there",
                )
            )
    models = {node: " + ".join(sorted({gpu.name for gpu in fact.gpus})) for node, fact in facts.items() if fact.gpus}
    if differ(models):
        rows.append(warn("GPUs", f"models differ: {groups(models)}", "the slowest one sets the pace for all"))
    old = [node for node, fact in facts.items() if any(not gpu.bfloat16 for gpu in fact.gpus)]
    if old and findings.dtype == "bfloat16":
        rows.append(warn("GPUs", f"no bfloat16 in hardware on {names(old)}", "set model.dtype=float32"))
    if old and findings.dtype == "auto" and len(old) < len([fact for fact in facts.values() if fact.gpus]):
        found = f"no bfloat16 in hardware on {names(old)}: with model.dtype=auto all ranks compute in float32"
        rows.append(warn("GPUs", found, "take these nodes out of the hostfile, or accept it"))
    seen_of = {node: f"{len(fact.gpus)} × {models[node]}" for node, fact in facts.items() if fact.gpus}
    each = "" if differ(seen_of) or len(seen_of) == 1 else " on each node"
    return either(rows, ok("GPUs", (groups(seen_of) if differ(seen_of) else next(iter(seen_of.values()))) + each))


def gpu_memory(findings: Findings) -> list[Row]:
    """Free on every GPU that the run would take."""
    rows, free = [], []
    for node in findings.answered:
        assert node.facts
        for index, gpu in enumerate(node.facts.gpus[: node.slots]):
            free.append(gpu.free_bytes)
            if gpu.free_bytes < FREE_GPU_SHARE * gpu.total_bytes:
                rows.append(
                    warn(
                        "GPU memory",
                        f"{node.name}, GPU {index}: {size(gpu.free_bytes)} of {size(gpu.total_bytes)} free",
                        "nvidia-smi there shows who holds it",
                    )
                )
    if not free:
        return []
    return either(rows, ok("GPU memory", f"{least(free, size)} free on each GPU"))


def shared_memory(findings: Findings) -> list[Row]:
    """/dev/shm."""
    facts = facts_of(findings)
    sizes = {node: fact.shared_memory_bytes for node, fact in facts.items()}
    absent = {node: "not there" for node, count in sizes.items() if count is None}
    small = {
        node: f"{size(count)}, NCCL needs more between GPUs"
        for node, count in sizes.items()
        if count is not None and count < SHARED_MEMORY_BYTES and facts[node].gpus
    }
    rows = by_text("/dev/shm", "warn", absent, "mount a tmpfs there")
    rows += by_text(
        "/dev/shm",
        "warn",
        small,
        "docker run --shm-size=8g (or --ipc=host); Kubernetes: an emptyDir with medium: Memory",
    )
    return either(rows, ok("/dev/shm", least([count for count in sizes.values() if count], size)))


def limits(findings: Findings) -> list[Row]:
    """Open files and locked memory, as the launcher's processes will have them."""
    facts = facts_of(findings)
    wanted = max(OPEN_FILES, OPEN_FILES_PER_RANK * sum(node.processes for node in findings.nodes))
    few = {
        node: f"ulimit -n is {fact.open_files}, below {wanted}"
        for node, fact in facts.items()
        if 0 <= fact.open_files < wanted
    }
    locked = {
        node: f"InfiniBand, but ulimit -l allows {fact.locked_memory_bytes // 1024} KiB of locked memory"
        for node, fact in facts.items()
        if fact.infiniband and 0 <= fact.locked_memory_bytes < LOCKED_MEMORY_BYTES
    }
    rows = by_text("limits", "warn", few, f"nofile {wanted} or more in /etc/security/limits.conf (LimitNOFILE of sshd)")
    rows += by_text(
        "limits", "warn", locked, "memlock unlimited in /etc/security/limits.conf; docker run --ulimit memlock=-1"
    )
    allowed = [float(fact.open_files) if fact.open_files >= 0 else float("inf") for fact in facts.values()]
    return either(rows, ok("limits", f"open files: {least(allowed, _whole)}"))


def _whole(count: float) -> str:
    return "unlimited" if count == float("inf") else f"{count:.0f}"
