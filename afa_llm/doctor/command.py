"""The verb `doctor`: its options in, table or JSON out, exit code 2 where a row fails."""

from __future__ import annotations

import argparse
import os

from rich.console import Console

from afa_llm.config import Config
from afa_llm.doctor.access import Access
from afa_llm.doctor.examination import Plan, examine
from afa_llm.doctor.hostfile import read_hostfile
from afa_llm.doctor.judge import judge
from afa_llm.doctor.launch_environment import launch_environment, launcher_folders
from afa_llm.doctor.rows import worst
from afa_llm.doctor.table import as_json, print_table
from afa_llm.telling import results_console


def run(options: argparse.Namespace, config: Config, config_file: str | None) -> int:
    """Examine, judge, print. Returns the exit code. Raises AfaError: hostfile, .deepspeed_env."""
    plan = Plan(
        config=config,
        config_file=config_file,
        hosts=read_hostfile(options.hostfile) if options.hostfile else (),
        access=Access(options.python, options.ssh_config, options.ssh_port),
        folder=os.getcwd(),
        environment=launch_environment(os.environ, launcher_folders()) if options.hostfile else {},
        master_address=options.master_addr,
        master_port=options.master_port,
        limit_s=options.timeout,
    )
    with Console(stderr=True).status(f"asking {len(plan.hosts) or 1} node(s) …"):
        findings = examine(plan)
    rows = judge(findings)
    if options.json:
        print(as_json(rows, findings))
    else:
        print_table(rows, results_console())
    return 2 if worst(rows) == "fail" else 0
