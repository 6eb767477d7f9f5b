"""The options of `afa benchmark` and what its help says."""

from __future__ import annotations

import argparse

DESCRIPTION = """Run a matrix of arms x data sets x seeds, and tell a real gain from noise.

CONFIG names a base configuration, arms (prompted, few-shot, LoRA alone, AFA, its controls), data sets, seeds and goals:

  name: pocket
  base: {config: "builtin:demo", settings: {training: {epochs: 1}}}
  arms:
    cross_entropy: {settings: {objective: {policy_gradient_weight: 0}}}
    afa: {}
  data_sets:
    planted: {}
  seeds: [0, 1, 2]
  reference: cross_entropy
  goals:
    accuracy: {arm: afa, against: cross_entropy, at_least: 0.01}
    sufficiency: {arm: afa, against: cross_entropy, metric: sufficiency, at_most: -0.05}  # less is better

Every cell is an ordinary run in output_dir/name/<data set>/<arm>/seed<k>/ and can be read with `afa report`. Killed or
stopped, the same command goes on: finished cells stay, begun ones resume from their checkpoint. A failed cell does not
stop the others. At the end output_dir/name/ holds report.html, benchmark.json, and tables/ as CSV and LaTeX."""

MOST_JOBS = 1024
EPILOG = """examples:
  afa benchmark configs/benchmark_pocket.yaml --dry-run
  afa benchmark configs/benchmark_arms.yaml --only 'planted/*'
  AFA_DATA=DIR afa benchmark configs/benchmark_pocket.yaml --only 'sst2/*' seeds='[0, 1]' \\
      base.settings.training.max_steps=20
  CUDA_VISIBLE_DEVICES=0,1,2,3 afa benchmark CONFIG --jobs 2 --launcher 'deepspeed --num_gpus 2' \\
      base.settings.training.engine=deepspeed

exit codes: 0 all cells are done; 1 a cell failed, or files of one are damaged and were left out of the report;
2 something in CONFIG or the data is wrong, nothing was run; 75 stopped by a signal, the same command goes on;
130 interrupted from the keyboard."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("config", metavar="CONFIG", help="benchmark file (YAML)")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],  # without it argparse says that they are required
        metavar="key=value",
        help="laid over CONFIG, such as seeds='[0]' or arms.afa.title=AFA",
    )
    parser.add_argument(
        "--jobs", type=_jobs, default=1, metavar="N", help="cells at a time (1), with the GPUs dealt out"
    )
    parser.add_argument(
        "--launcher", default="", metavar="COMMAND", help="starts each cell with this, such as 'deepspeed --num_gpus 2'"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="cells to run, such as 'sst2/*/seed0'; repeatable",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the cells with their steps; run nothing")
    parser.add_argument("--report", action="store_true", help="write the report of what is finished; run nothing")


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:9]) <= MOST_JOBS or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}: a whole number from 1 to {MOST_JOBS}")
    return int(text)
