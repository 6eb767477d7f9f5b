"""The number type of a run, the same on all its ranks and after every resume."""

from __future__ import annotations

from pathlib import Path

from afa_llm.config import Config
from afa_llm.models.compute_type import choose_dtype, has_bfloat16
from afa_llm.run_folder import SETTINGS, read_run_config
from afa_llm.training.distributed import World


def settle_dtype(config: Config, world: World) -> Config:
    """`model.dtype=auto` decided for all ranks together; a resumed run keeps the type it was started with.

    Says so where bfloat16 was asked for and a processor has to emulate it.
    """
    native = all(world.gather(has_bfloat16(world.device)))
    if config.model.dtype == "bfloat16" and not native and world.device.type == "cpu":
        world.tell(
            "model.dtype = bfloat16: this processor emulates it, many times slower than float32; set model.dtype=auto"
        )
    saved = Path(config.run.output_dir) / config.run.name / SETTINGS
    begun = saved.exists() and read_run_config(saved.parent).model if config.run.resume and world.leads else None
    begun = world.from_leader(begun)
    if config.model.dtype == "auto" and begun:
        return config.model_copy(update={"model": config.model.model_copy(update={"dtype": begun.dtype})})
    return config.model_copy(update={"model": choose_dtype(config.model, native=native)})
