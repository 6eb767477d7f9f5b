"""Whether all ranks of a job were started with the same settings."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from afa_llm.config import Config
from afa_llm.errors import AfaError
from afa_llm.run_folder import differences
from afa_llm.training.distributed import World

SHOWN = 3


def check_same_settings(config: Config, world: World) -> None:
    """Raises AfaError on every rank where one has other settings than rank 0.

    Two jobs that take one port for their ranks can otherwise train with each other's, and nothing tells. Of paths the
    last part counts: home folders may differ from node to node.
    """
    first, *others = world.gather(_without_folders(config.model_dump(mode="json")))
    for rank, settings in enumerate(others, 1):
        found = [f"{name} = {there} (rank 0: {here})" for name, there, here in differences(settings, first, "")]
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise AfaError(
                f"rank {rank} has other settings than rank 0: {'; '.join(found[:SHOWN])}{more}: start all ranks with "
                "the same; where these are two jobs, set another MASTER_PORT for one of them"
            )


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return PurePath(value).name if isinstance(value, str) and "/" in value else value
