"""The verb `plan`: its options in, table or JSON out, exit code 2 where it does not fit."""

from __future__ import annotations

import argparse

from rich.console import Console

from afa_llm.config import Config
from afa_llm.errors import AfaError
from afa_llm.planning.dry_run import ANSWERS
from afa_llm.planning.fits import Memory, verdicts
from afa_llm.planning.layout import layout_of, with_offload
from afa_llm.planning.plan import Plan, make_plan
from afa_llm.planning.table import as_json, print_plan
from afa_llm.records import AnswerWords
from afa_llm.telling import results_console


def run(options: argparse.Namespace, config: Config, answers: AnswerWords = ANSWERS) -> int:
    """Plan, judge, print. `answers`: the longest of any template. Returns the exit code. Raises AfaError: model, ranks,
    DeepSpeed file."""
    ranks_per_node = options.ranks_per_node or options.ranks
    if ranks_per_node > options.ranks:
        raise AfaError(f"--ranks-per-node {ranks_per_node}: more than all ranks; set --ranks {ranks_per_node}")
    memory = Memory(options.gpu_memory, options.host_memory)

    def planner(planned: Config, offload: bool) -> Plan:
        layout = layout_of(planned, options.ranks, ranks_per_node, on_gpu=memory.on_gpu)
        layout = with_offload(layout) if offload else layout
        return make_plan(planned, layout, on_gpu=memory.on_gpu, gpu=memory.gpu, answers=answers)

    with Console(stderr=True).status("planning …"):
        plan = planner(config, False)
        found = verdicts(plan, memory, config, planner)
    if options.json:
        print(as_json(plan, found))
    else:
        print_plan(plan, found, results_console())
    return 0 if all(verdict.fits for verdict in found) else 2
