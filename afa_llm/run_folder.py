"""A run's folder: claimed by one run, its settings saved, its set-aside rows written.

`runs/<name>/` holds `config.yaml`, `metrics.jsonl`, `results.json`, `items/`, `report.html`, `adapter/` and
`checkpoints/`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from afa_llm.config import Config
from afa_llm.config_loading import dump_config, load_config
from afa_llm.data.quarantine import Quarantine
from afa_llm.errors import AfaError
from afa_llm.evaluation import json_files
from afa_llm.material import Material
from afa_llm.models.compute_type import choose_dtype, has_bfloat16
from afa_llm.training.distributed import World


def read_run_config(folder: Path) -> Config:
    """The configuration that a run saved."""
    return load_config(str(folder / "config.yaml"))


def settle_dtype(config: Config, world: World) -> Config:
    """`model.dtype=auto` decided for all ranks together; a resumed run keeps the type it was started with.

    Says so where bfloat16 was asked for and a processor has to emulate it.
    """
    native = all(world.gather(has_bfloat16(world.device)))
    if config.model.dtype == "bfloat16" and not native and world.device.type == "cpu":
        world.tell(
            "model.dtype = bfloat16: this processor emulates it, many times slower than float32; set model.dtype=auto"
        )
    saved = Path(config.run.output_dir) / config.run.name / "config.yaml"
    begun = saved.exists() and read_run_config(saved.parent).model if config.run.resume and world.leads else None
    begun = world.from_leader(begun)
    if config.model.dtype == "auto" and begun:
        return config.model_copy(update={"model": config.model.model_copy(update={"dtype": begun.dtype})})
    return config.model_copy(update={"model": choose_dtype(config.model, native=native)})


def open_folder(config: Config, world: World) -> Path:
    """The run's folder with its config.yaml. Refuses to mix two runs."""
    folder = Path(config.run.output_dir) / config.run.name
    trouble = None
    if world.leads:
        try:
            trouble = _claim(config, folder)
        except OSError as error:
            trouble = f"run.output_dir = {config.run.output_dir}: cannot write there: {error.strerror}"
    trouble = world.from_leader(trouble)
    if trouble:
        raise AfaError(trouble)
    return folder


def _claim(config: Config, folder: Path) -> str | None:
    if (folder / "config.yaml").exists():
        if config.run.overwrite and not config.run.resume:
            shutil.rmtree(folder)
        elif not config.run.resume:
            return (
                f"run.name = {config.run.name}: {folder} holds an earlier run; choose another run.name, or set "
                "run.overwrite=true (it is deleted) or run.resume=true (it is continued)"
            )
    elif folder.exists() and any(folder.iterdir()):
        return f"run.name = {config.run.name}: {folder} exists and is no run of afa-llm; choose another run.name"
    for change in changed_settings(folder, config):
        print(f"resumed with {change}", file=sys.stderr, flush=True)
    (folder / "items").mkdir(parents=True, exist_ok=True)
    json_files.write_text(folder / "config.yaml", dump_config(config))
    return None


def changed_settings(folder: Path, config: Config) -> list[str]:
    """Settings that differ from those the run was started with, such as `lora.rank = 16 (was 8)`."""
    if not config.run.resume or not (folder / "config.yaml").exists():
        return []
    before, now = (c.model_dump(mode="json") for c in (read_run_config(folder), config))
    found = []
    for section, values in now.items():
        for name, value in values.items():
            old = before[section][name]
            if old != value and (section, name) not in (("run", "resume"), ("run", "overwrite")):
                found.append(f"{section}.{name} = {value} (was {old})")
    return found


def report_data(folder: Path, material: Material, world: World) -> None:
    if not world.leads:
        return
    for notice in material.notices:
        world.tell(notice)
    together = Quarantine()
    for title, quarantine in material.quarantines.items():
        together.absorb(quarantine)
        if quarantine.summary():
            world.tell(f"{title}: {quarantine.summary()}")
    written = together.write(folder / "quarantine.jsonl")
    if written:
        world.tell(f"{len(together.rows)} rows set aside, see {written}")
