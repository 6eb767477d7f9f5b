"""A run's folder: reserved for one process, claimed when nothing can be wrong any more, its settings saved.

`runs/<name>/` holds `config.yaml`, `metrics.jsonl`, `results.json`, `items/`, `report.html`, `adapter/` and
`checkpoints/`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from afa_llm.config import Config
from afa_llm.config_data import Data
from afa_llm.config_loading import dump_config, load_config
from afa_llm.config_texts import texts_of
from afa_llm.data.quarantine import Quarantine
from afa_llm.errors import AfaError
from afa_llm.evaluation import json_files
from afa_llm.material import Material
from afa_llm.telling import tell
from afa_llm.training.distributed import World
from afa_llm.training.durable_files import lock_file

SETTINGS, LOCK = "config.yaml", ".lock"
TRAINED = ("checkpoints", "adapter", "metrics.jsonl")
FOLDERS = ("checkpoints", "adapter", "items", "tensorboard")
FILES = ("metrics.jsonl", "results.json", "report.html", "quarantine.jsonl")
OTHER = "choose another run.name"
OF_TRAINING = ("lora", "masking", "adversary", "reward", "objective", "training")
"""Sections of the configuration that say how steps are taken, and nothing of what is measured."""


def read_run_config(folder: Path) -> Config:
    """The configuration that a run saved."""
    return load_config(str(folder / SETTINGS))


@contextmanager
def reserved_folder(
    config: Config, world: World, *, adapter: Path | None = None, evaluates: bool = False
) -> Iterator[Path]:
    """The run's folder, for this process alone until the block is left. What lies there stays as it is until `claim`.

    `adapter`: what is measured; `evaluates`: nothing is trained. Raises AfaError on every rank: an earlier run that is
    neither replaced nor continued, or that holds what this one reads, a folder of something else, another process at
    work in it, a place where nothing can be written.
    """
    folder = Path(config.run.output_dir) / config.run.name
    trouble = lock = None
    if world.leads:
        try:
            trouble = _refusal(config, folder, adapter, evaluates)
            if not trouble:
                folder.mkdir(parents=True, exist_ok=True)
                lock = lock_file(folder / LOCK)
                trouble = _taken(config, folder) if lock is None else None
        except OSError as error:
            trouble = f"run.output_dir = {config.run.output_dir}: cannot write there: {error.strerror}"
    try:
        trouble = world.from_leader(trouble)
        if trouble:
            raise AfaError(trouble)
        yield folder
    finally:
        if lock is not None:
            with suppress(OSError):
                (folder / LOCK).unlink()
                folder.rmdir()  # it is empty where something was wrong before `claim`
            os.close(lock)


def _refusal(config: Config, folder: Path, adapter: Path | None, evaluates: bool) -> str | None:
    name = f"run.name = {config.run.name}"
    if _is_run(folder):
        if config.run.resume:
            if evaluates and any((folder / part).exists() for part in TRAINED):
                return f"{name}: {folder} holds a training run, which an evaluation can't continue; {OTHER}"
            return _other_kind(folder) or _other_validation(config, folder)
        if not config.run.overwrite:
            return (
                f"{name}: {folder} holds an earlier run; {OTHER}, or set run.overwrite=true (it is deleted) or "
                "run.resume=true (it is continued)"
            )
        inside = _inputs_inside(config, folder, adapter)
        return f"{inside} lies in {folder}, an earlier run that would be deleted; {OTHER}" if inside else None
    if folder.exists() and not all(map(_left_by_a_kill, folder.iterdir())):
        return f"{name}: {folder} exists and is no run of afa-llm; {OTHER}"
    return None


def _left_by_a_kill(path: Path) -> bool:
    """Whether it is what a run has in its folder before its config.yaml: nothing is lost with it."""
    empty = path.name == "items" and path.is_dir() and not any(path.iterdir())
    return empty or path.name == LOCK or path.match(f".{SETTINGS}.*.tmp")


def _is_run(folder: Path) -> bool:
    """Whether its config.yaml is one that a run saves; other programs have files of that name too."""
    try:
        saved = yaml.safe_load((folder / SETTINGS).read_bytes())
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(saved, dict) and saved.keys() >= {"run", "model", "data", "lora"}


def _other_kind(folder: Path) -> str | None:
    """A file where a run has a folder, or a folder where it has a file: told before hours of training, not after."""
    for names, here, there in ((FOLDERS, Path.is_dir, "folder"), (FILES, Path.is_file, "file")):
        for path in (folder / name for name in names):
            if path.exists() and not here(path):
                return f"{path}: a run has a {there} of this name, and this is none; move it away, or {OTHER}"
    return None


def _other_validation(config: Config, folder: Path) -> str | None:
    """The best checkpoint so far was the best on other reviews."""
    if not (folder / "checkpoints").is_dir():
        return None
    now, before = config.data.validation, read_run_config(folder).data.validation
    if now is None or before is None or now == before:
        return None
    return (
        f"data.validation = {now.title}: {folder} is continued, and its best checkpoint so far was found on other "
        f"reviews, see {folder / SETTINGS}; bring them back, or {OTHER}"
    )


def _inputs_inside(config: Config, folder: Path, adapter: Path | None) -> str | None:
    """A setting or option that names something in this folder: it would be gone before it is read."""
    if adapter is not None and _lies_in(str(adapter), folder):
        return f"--adapter {adapter}"
    for section, values in config.model_dump(mode="json").items():
        for name, value in texts_of(values, section):
            if section != "run" and _lies_in(value, folder):
                return f"{name} = {value}"
    return None


def _lies_in(path: str, folder: Path) -> bool:
    try:
        place = Path(os.path.expanduser(path))  # as whoever reads it does
        return place.exists() and place.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # a text that can't be a path
        return False


def _taken(config: Config, folder: Path) -> str:
    return (
        f"run.name = {config.run.name}: another process is writing {folder}; wait until it has ended, or choose "
        "another run.name"
    )


def claim(config: Config, folder: Path, world: World) -> None:
    """Make a reserved folder this run's own: an earlier run that is replaced goes, config.yaml is written.

    A resumed run's config.yaml stays until `save_settings`: its checkpoint may not fit the new settings. Raises
    AfaError on every rank where something cannot be written.
    """
    trouble = None
    if world.leads:
        try:
            _claim(config, folder, world)
        except OSError as error:
            trouble = f"{error.filename or folder}: cannot be written: {error.strerror}"
    trouble = world.from_leader(trouble)
    if trouble:
        raise AfaError(trouble)


def _claim(config: Config, folder: Path, world: World) -> None:
    begun = (folder / SETTINGS).exists()
    if begun and not config.run.resume:
        _clear(folder)
    for change in changed_settings(folder, config):
        tell(f"resumed with {change}")
    (folder / "items").mkdir(exist_ok=True)
    if not (begun and config.run.resume):
        save_settings(config, folder, world)


def save_settings(config: Config, folder: Path, world: World, *, trains: bool = True) -> None:
    """All but the leave to replace or continue an earlier run: it was given once, not to whoever takes this file.

    `trains`: whether a step is taken with them; else those of training stay as they were taken.
    """
    if world.leads:
        kept = {} if trains else _as_trained(config, read_run_config(folder))
        run = config.run.model_copy(update={"overwrite": False, "resume": False})
        json_files.write_text(folder / SETTINGS, dump_config(config.model_copy(update={"run": run, **kept})))


def _as_trained(config: Config, before: Config) -> dict[str, Any]:
    """The sections of training as they were before; which of the trained adapters is the result, is chosen anew."""
    chosen = before.training.model_copy(update={"adapter": config.training.adapter})
    return {name: getattr(before, name) for name in OF_TRAINING} | {"training": chosen}


def _clear(folder: Path) -> None:
    """Everything but the lock goes, config.yaml last: what a kill leaves is still known as a run."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == SETTINGS):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def changed_settings(folder: Path, config: Config) -> list[str]:
    """Settings that differ from those the run was started with, such as `lora.rank = 16 (was 8)`."""
    if not config.run.resume or not (folder / SETTINGS).exists():
        return []
    before, now = (c.model_dump(mode="json") for c in (read_run_config(folder), config))
    settled = {"model.dtype", "attention.layers"}  # a run keeps what it settled on (run_dtype, run_layers)
    return [
        f"{name} = {new} (was {old})"
        for name, new, old in differences(now, before, "")
        if name not in ("run.resume", "run.overwrite") and not (new == "auto" and name in settled)
    ]


def differences(now: Any, before: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """The smallest parts that differ: of a section or list of the same length what changed in it, not all of it."""
    inside = f"{name}." if name else ""
    if isinstance(now, dict) and isinstance(before, dict) and now.keys() == before.keys():
        for key, value in now.items():
            yield from differences(value, before[key], f"{inside}{key}")
    elif isinstance(now, list) and isinstance(before, list) and len(now) == len(before) and _of_sections(now):
        for index, value in enumerate(now):
            yield from differences(value, before[index], f"{inside}{index}")
    elif now != before:
        yield name, now, before


def _of_sections(entries: list[Any]) -> bool:
    return all(isinstance(entry, dict) for entry in entries)


def counted_elsewhere(config: Config, adapter: Path | None) -> list[str]:
    """A notice where the words that an evaluation calls rare or frequent are counted in other reviews than the adapter
    was trained on, or where nobody knows. Rare words, words of like frequency and slices all hang on them. Without an
    adapter, where they are counted in the packaged reviews, though others are measured."""
    counted = f"how rare a word is, is counted in data.train = {config.data.train.title}"
    if adapter is None:
        packaged = Data().train
        strange = config.data.train == packaged and {s.path for s in config.data.evaluation} != {packaged.path}
        return [f"{counted}; set it to reviews like those that are measured"] if strange else []
    run = adapter.resolve().parent
    if not _is_run(run):
        return [f"{counted}; set it to the reviews that {adapter} was trained on, if it is not"]
    try:
        trained = read_run_config(run)
    except AfaError:  # of another version
        return [f"{counted}; set it to the reviews of {run / SETTINGS}, if it is not"]
    ours, theirs = (_drawn_from(each) for each in (config, trained))
    return (
        []
        if ours == theirs
        else [f"{counted}, but {adapter} was trained on others; take data.train of {run / SETTINGS}"]
    )


def _drawn_from(config: Config) -> object:
    """What decides which reviews data.train gives, but for the file itself; the seed counts where some are drawn, the
    labels where a word is put into those of one: an evaluation does not ask for them otherwise."""
    train = config.data.train
    seed = config.run.seed if train.max_samples is not None or train.spurious is not None else None
    labels = list(config.data.labels.items()) if train.spurious is not None else None
    return train.model_dump(exclude={"name"}), labels, seed


def tell_data(material: Material, world: World) -> None:
    """Notices, and what was set aside or left out, data set by data set."""
    if not material.evaluation:
        world.tell("data.evaluation = []: nothing is measured, before training or after")
    for line in data_notices(material):
        world.tell(line)


def data_notices(material: Material) -> list[str]:
    """What is odd about the reviews, and what was set aside or left out of each data set."""
    told = [f"{title}: {found.summary()}" for title, found in material.quarantines.items() if found.summary()]
    return [*material.notices, *told]


def write_quarantine(folder: Path, material: Material, world: World) -> None:
    """Every row that was set aside. Two data sets may use the same ids, so none stands for another."""
    if not world.leads:
        return
    together = Quarantine(rows=[row for quarantine in material.quarantines.values() for row in quarantine.rows])
    written = together.write(folder / "quarantine.jsonl")
    if written:
        world.tell(f"{len(together.rows)} rows set aside, see {written}")
