"""A model in several files whose index is broken: one message that names the index and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from refusals import check_refused
from safetensors.torch import load_file
from saved_models import base_of

INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-00001.safetensors"
SHAPE = "is no index of weights: it needs an object weight_map"


def shard(folder: Path, **changes: Any) -> Path:
    """The folder's weights in a shard, and their index; `changes` of it by key."""
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / SHARD)
    index: dict[str, Any] = {"metadata": {}, "weight_map": dict.fromkeys(names, SHARD)}
    (folder / INDEX).write_text(json.dumps(index | changes))
    return folder / INDEX


def test_a_good_index_is_read(folder: Path) -> None:
    shard(folder)
    base_of(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"weight_map": {', "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", SHAPE),
        ('{"metadata": {}}', SHAPE),
        ('{"metadata": {}, "weight_map": ["a.safetensors"]}', SHAPE),
        ('{"metadata": {}, "weight_map": {"a": 3}}', SHAPE),
        (f'{{"weight_map": {{"a": "{SHARD}"}}}}', SHAPE),
    ],
)
def test_an_index_that_says_nothing(folder: Path, text: str, words: str) -> None:
    shard(folder).write_text(text)
    check_refused(lambda: base_of(folder), f"model.path = {folder}: {INDEX} {words}", "copy the model's files anew")


def test_a_shard_that_is_not_there(folder: Path) -> None:
    shard(folder, weight_map={"a": SHARD, "b": "model-00002-of-00002.safetensors"})
    check_refused(lambda: base_of(folder), f"{INDEX} names model-00002-of-00002.safetensors, which is not there")


@pytest.mark.parametrize("outside", ["../elsewhere.safetensors", "a/../../elsewhere.safetensors", "absolute"])
def test_a_shard_outside_the_folder_is_not_read(folder: Path, outside: str) -> None:
    names = load_file(folder / "model.safetensors")
    place = folder.parent / "elsewhere.safetensors"
    name = str(place) if outside == "absolute" else outside
    shard(folder, weight_map=dict.fromkeys(names, name))
    (folder / SHARD).rename(place)
    check_refused(lambda: base_of(folder), f"{INDEX} names {name}, which lies outside the model's folder")


def test_an_index_that_nobody_reads_does_no_harm(folder: Path) -> None:
    """Beside a whole file, as a merge may leave it."""
    (folder / INDEX).write_text("{")
    base_of(folder)
