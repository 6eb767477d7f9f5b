"""Rows on files: what a run reads on every node, and the folder that it writes."""

from __future__ import annotations

from afa_llm.doctor.findings import Findings
from afa_llm.doctor.inputs import may_be_on_hub
from afa_llm.doctor.judge_machines import facts_of
from afa_llm.doctor.rows import Row, differ, either, fail, groups, is_true, least, names, ok, size, warn

DISK_FAIL_BYTES, DISK_WARN_BYTES = 2**30, 10 * 2**30


def inputs(findings: Findings) -> list[Row]:
    """Configuration, model, data and templates: on every node, and the same."""
    facts, rows = facts_of(findings), []
    for setting, path in findings.input_paths.items():
        seen = {node: fact.inputs[setting] for node, fact in facts.items() if setting in fact.inputs}
        closed = {node: f"cannot be read on {node}: {found.trouble}" for node, found in seen.items() if found.trouble}
        print_of = {node: found.fingerprint for node, found in seen.items() if node not in closed}
        lacking = [node for node, fingerprint in print_of.items() if fingerprint is None]
        what = f"{setting} = {path}"
        for trouble in closed.values():
            rows.append(
                fail("inputs", f"{what}: {trouble}", "make it readable for the user that runs the job, or name another")
            )
        if print_of and len(lacking) == len(print_of) and may_be_on_hub(setting, path):
            rows += _hub(findings, setting, what)
        elif lacking:
            rows.append(
                fail("inputs", f"{what}: not there on {names(lacking)}", "copy it there, or put it on a shared path")
            )
        elif differ(print_of):
            contents = {node: str(fingerprint) for node, fingerprint in print_of.items()}
            rows.append(fail("inputs", f"{what} differs: {groups(contents)}", "bring the same one to every node"))
    told = ", ".join(findings.input_paths) or "all come with the package"
    return either(rows, ok("inputs", told))


def _hub(findings: Findings, setting: str, what: str) -> list[Row]:
    """A name of the hub: a model should lie in the cache of every node; of data nothing is known before."""
    facts = facts_of(findings)
    uncached = [node for node, fact in facts.items() if fact.inputs[setting].cached is False]
    offline = [node for node in uncached if is_true(facts[node].environment.get("HF_HUB_OFFLINE"))]
    if offline:
        return [
            fail(
                "inputs",
                f"{what}: not in the hub cache of {names(offline)}, and HF_HUB_OFFLINE is set",
                "name a folder, or fill the cache there first (hf download)",
            )
        ]
    if uncached:
        return [
            warn(
                "inputs",
                f"{what}: not in the hub cache of {names(uncached)}",
                "every node downloads it when the run starts; hf download on each does it before",
            )
        ]
    return []


def output_folder(findings: Findings) -> list[Row]:
    """run.output_dir: writable everywhere, and one folder for all."""
    rows, count = [], len(findings.nodes)
    what = f"run.output_dir = {findings.output_dir}"
    written = [node for node in findings.answered if node.folder]
    wrote = [node for node in written if node.folder and not node.folder.trouble]
    for node in written:
        if node.folder and node.folder.trouble:
            full = any(sign in node.folder.trouble.lower() for sign in ("no space", "quota"))
            mend = "make room there" if full else "make it writable for the user that runs the job"
            rows.append(
                fail(
                    "output folder",
                    f"{what}: {node.name} cannot write to {node.folder.path}: {node.folder.trouble}",
                    f"{mend}, or set another run.output_dir",
                )
            )
    numbers = {node.name: k for k, node in enumerate(findings.nodes)}
    expected = {numbers[node.name] for node in wrote}
    apart = [node.name for node in wrote if node.sees is not None and not expected <= set(node.sees)]
    if apart:
        rows.append(
            fail(
                "output folder",
                f"{what} is not one folder: {names(apart)} cannot see the files of all the others",
                "set run.output_dir to a path on a file system that every node mounts: checkpoints are written by "
                "all and read by all",
            )
        )
    silent = [node.name for node in wrote if node.sees is None]
    if silent:
        rows.append(
            warn("output folder", f"{what}: {names(silent)} fell silent before it could be compared", "see nodes")
        )
    shared = f", one folder on {count} nodes" if count > 1 else ""
    return either(rows, ok("output folder", f"{what}: writable{shared}")) if written else rows


def disk_space(findings: Findings) -> list[Row]:
    """Free bytes where the run will write."""
    rows = []
    free_of = {
        node.name: node.folder.free_bytes
        for node in findings.answered
        if node.folder and node.folder.free_bytes is not None
    }
    for node, free in free_of.items():
        if free < DISK_WARN_BYTES:
            make = fail if free < DISK_FAIL_BYTES else warn
            rows.append(
                make("disk space", f"{node}: {size(free)} free in run.output_dir", "make room, or set run.output_dir")
            )
    if not free_of:
        return []
    return either(rows, ok("disk space", f"{least(free_of.values(), size)} free in run.output_dir"))
