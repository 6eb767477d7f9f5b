"""Faults of inputs, output folder and disk; see planted_faults."""

from __future__ import annotations

from planted_findings import (
    GIB,
    facts,
    healthy,
    node,
    with_second,
)

from afa_llm.doctor.findings import Findings, Folder, Input


def with_input(setting: str, path: str, *of_nodes: Input, **environment: str) -> Findings:
    nodes = [
        node(name, 2 * k, facts=facts(name, inputs={setting: found}, environment=environment))
        for k, (name, found) in enumerate(zip("abc", of_nodes, strict=True))
    ]
    return healthy(nodes, input_paths={setting: path})


SAME, OTHER, GONE = Input(fingerprint="111"), Input(fingerprint="222"), Input(fingerprint=None)
CACHED, UNCACHED = Input(fingerprint=None, cached=True), Input(fingerprint=None, cached=False)

FILE_FAULTS: dict[str, tuple[Findings, str, str, str, str]] = {
    "model missing on one": (
        with_input("model.path", "models/big", SAME, GONE, SAME),
        "inputs",
        "fail",
        "model.path = models/big: not there on b",
        "copy it there",
    ),
    "data differs": (
        with_input("data.train.path", "t.jsonl", SAME, OTHER, SAME),
        "inputs",
        "fail",
        "111 on a, c; 222 on b",
        "same one",
    ),
    "local path nowhere": (with_input("model.path", "/m/x", GONE, GONE, GONE), "inputs", "fail", "a, b, c", "copy"),
    "data nowhere": (with_input("data.train.path", "t.jsonl", GONE, GONE, GONE), "inputs", "fail", "a, b, c", "copy"),
    "templates nowhere": (with_input("prompts.file", "p.yaml", GONE, GONE, GONE), "inputs", "fail", "a, b, c", "copy"),
    "configuration nowhere": (with_input("CONFIG", "c.yaml", GONE, GONE, GONE), "inputs", "fail", "a, b, c", "copy"),
    "hub model not cached": (
        with_input("model.path", "org/model", CACHED, UNCACHED, CACHED),
        "inputs",
        "warn",
        "not in the hub cache of b",
        "hf download",
    ),
    "hub model not cached, offline": (
        with_input("model.path", "org/model", CACHED, UNCACHED, CACHED, HF_HUB_OFFLINE="1"),
        "inputs",
        "fail",
        "HF_HUB_OFFLINE",
        "hf download",
    ),
    "hub model not cached, online": (  # as huggingface_hub reads it
        with_input("model.path", "org/model", CACHED, UNCACHED, CACHED, HF_HUB_OFFLINE="false"),
        "inputs",
        "warn",
        "not in the hub cache of b",
        "hf download",
    ),
    "input that cannot be read": (
        with_input("data.train.path", "t.csv", SAME, Input(fingerprint=None, trouble="Permission denied"), SAME),
        "inputs",
        "fail",
        "data.train.path = t.csv: cannot be read on b: Permission denied",
        "readable",
    ),
    "folder not writable": (
        with_second(folder=Folder(path="/x/runs", trouble="Permission denied", free_bytes=None)),
        "output folder",
        "fail",
        "b cannot write to /x/runs: Permission denied",
        "run.output_dir",
    ),
    "disk without room for a line": (
        with_second(folder=Folder(path="/x/runs", trouble="No space left on device", free_bytes=None)),
        "output folder",
        "fail",
        "b cannot write to /x/runs: No space left on device",
        "make room there",
    ),
    "quota used up": (
        with_second(folder=Folder(path="/x/runs", trouble="Disk quota exceeded", free_bytes=None)),
        "output folder",
        "fail",
        "b cannot write to /x/runs: Disk quota exceeded",
        "make room there",
    ),
    "folder not shared": (with_second(sees=[1]), "output folder", "fail", "not one folder: b", "every node mounts"),
    "disk low": (
        with_second(folder=Folder(path="/r", trouble=None, free_bytes=5 * GIB)),
        "disk space",
        "warn",
        "b: 5.0 GiB",
        "make room",
    ),
    "disk full": (
        with_second(folder=Folder(path="/r", trouble=None, free_bytes=GIB // 2)),
        "disk space",
        "fail",
        "b: 512 MiB",
        "make room",
    ),
}
