"""ZeRO stage x quantisation x offload: does it train, loss after 20 steps, step time, peak memory of a rank.

    python benchmarks/zero_table.py --out zero.jsonl [--ranks 2] [--steps 20] [--model builtin:pocket] [--only zero3]

Each cell is a real `deepspeed ... --module afa_llm train` on the planted reviews. A line of the file is a cell; cells
that stand there already are not run again. The table is printed as Markdown at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from afa_llm.training.distributed import free_port

ROOT = Path(__file__).parents[1]
LAYOUTS = {
    "ZeRO-0": [],
    "ZeRO-1": ["zero1"],
    "ZeRO-2": ["zero2"],
    "ZeRO-3": ["zero3"],
    "ZeRO-1, optimizer offload": ["zero1_offload"],
    "ZeRO-2, optimizer offload": ["zero2_offload"],
    "ZeRO-3, optimizer offload": ["zero3_offload"],
    "ZeRO-3, optimizer and parameter offload": ["zero3_offload_all"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of results, one JSON object a line")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--model", default="builtin:pocket")
    parser.add_argument("--only", default="", help="layouts whose DeepSpeed file has this in its name")
    parser.add_argument("--timeout", type=int, default=900, help="seconds for a cell")
    args = parser.parse_args()
    done = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    known = {(cell["layout"], cell["quantization"]) for cell in done}
    for layout, files in LAYOUTS.items():
        for quantization in ("none", "nf4", "int8"):
            if (layout, quantization) in known or args.only not in "".join(files):
                continue
            cell = {"layout": layout, "quantization": quantization} | run(args, files, quantization)
            done.append(cell)
            with args.out.open("a") as out:
                out.write(json.dumps(cell) + "\n")
            print(json.dumps(cell), flush=True)
    print(table(done))


def run(args: argparse.Namespace, files: list[str], quantization: str) -> dict:
    """One cell: what it gave, or the last line of what it said."""
    stage = int(files[0][4]) if files else 0
    settings = [
        f"model.path={args.model}",
        f"model.quantization={quantization}",
        "data.train.max_samples=640",
        "data.evaluation=[]",
        f"training.max_steps={args.steps}",
        "training.micro_batch_size=8",
        "training.checkpoint_every=0",
        "training.engine=deepspeed",
        f"training.zero_stage={stage}",
        "adversary.warmup_rounds=2",
        *[f"training.deepspeed_file={ROOT / 'configs' / 'deepspeed' / name}.json" for name in files],
    ]
    with tempfile.TemporaryDirectory() as folder:
        launcher = [str(Path(sys.executable).with_name("deepspeed")), "--num_accelerators", str(args.ranks)]
        command = [*launcher, "--master_port", str(free_port()), "--module", "afa_llm", "train", *settings]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        try:
            ended = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=args.timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return {"works": False, "said": f"no end after {args.timeout} s"}
        if ended.returncode:
            said = [
                line for line in (ended.stderr + ended.stdout).splitlines() if "Error" in line or "afa train" in line
            ]
            return {"works": False, "said": (said or [f"exit code {ended.returncode}"])[-1][:300]}
        lines = (Path(folder) / "runs" / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {
        "works": True,
        "task_loss": round(statistics.mean(row["task_loss"] for row in rows[-5:]), 4),
        "step_seconds": round(statistics.median(row["step_seconds"] for row in rows[2:]), 3),
        "peak_memory_gib": round(rows[-1]["peak_memory_gib"], 3),
    }


def table(cells: list[dict]) -> str:
    lines = [
        "| layout | base | works | task loss, steps 16-20 | s a step | peak GiB a rank |",
        "|---|---|---|---|---|---|",
    ]
    for cell in cells:
        if cell["works"]:
            facts = ["yes", f"{cell['task_loss']:.4f}", f"{cell['step_seconds']:.2f}", f"{cell['peak_memory_gib']:.2f}"]
        else:
            facts = [f"no: {cell['said']}", "", "", ""]
        lines.append(f"| {cell['layout']} | {cell['quantization']} | {' | '.join(facts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
