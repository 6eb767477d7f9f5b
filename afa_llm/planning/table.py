"""A plan as a table in a terminal, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from afa_llm.planning.fits import Verdict
from afa_llm.planning.plan import GIB, Part, Plan


def print_plan(plan: Plan, found: Sequence[Verdict], console: Console) -> None:
    """Parts of a rank, phases, the host's parts, and one line for each verdict."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("each rank, on its GPU" if plan.on_gpu else "each rank")
    table.add_column("GiB", justify="right", no_wrap=True)  # in a narrow terminal the words wrap, no figure is lost
    _add(table, plan.device)
    table.add_section()
    worst = max(plan.phases, key=lambda phase: phase.bytes)
    for phase in plan.phases:
        table.add_row(f"peak while {phase.name}", _gib(phase.bytes), style="bold" if phase is worst else None)
    if plan.reserve:
        table.add_row("set aside for CUDA, fragmentation (assumed)", _gib(plan.reserve))
    table.add_section()
    ranks = plan.layout.ranks_per_node
    table.add_row(Text("each rank, in host memory"), "", style="bold")
    _add(table, plan.host)
    if plan.unpacking:
        table.add_row("unpacking the base for vLLM, once a node", _gib(plan.unpacking))
    table.add_row(
        f"peak of a node of {ranks} rank{'' if ranks == 1 else 's'}", _gib(plan.host_node_bytes), style="bold"
    )
    table.add_row("model files in the page cache, once a node", _gib(plan.file_bytes))
    console.print(table)
    console.print(Text(f"\n{assumptions(plan)}", "dim"))
    for verdict in found:
        style = "green" if verdict.fits else "bold red"
        console.print(Text(verdict_line(verdict), style), soft_wrap=True)


def verdict_line(verdict: Verdict) -> str:
    said = "fits" if verdict.fits else "does not fit"
    line = f"{verdict.what}: {said}, {verdict.needs:.1f} of {verdict.has:.1f} GiB ({verdict.at})"
    return f"{line}; {verdict.mend}" if verdict.mend else line


def assumptions(plan: Plan) -> str:
    passes, layout = plan.passes, plan.layout
    views = f", masked views {passes.masked_rows} at once" if passes.masked_rows else ""
    ranks = f"{layout.ranks} rank{'' if layout.ranks == 1 else 's'}"
    zero = f", ZeRO {layout.stage}" if layout.deepspeed else ""
    engine = f"; {plan.engine}" if plan.engine else ""
    long = f"up to {passes.answer_tokens} tokens, each review read {passes.labels} times"
    answers = f"answers of {'one token' if passes.answer_tokens == 1 else long}"
    return (
        f"{ranks}{zero}; {passes.rows} reviews of {plan.tokens} tokens in a pass{views}; {answers}; "
        f"peak of a step in: {passes.at}{engine}"
    )


def as_json(plan: Plan, found: Sequence[Verdict]) -> str:
    """{"device", "phases", "host": {part: bytes}, "reserve", "peak", "host_node_bytes", "verdicts": [...], ...}."""
    content = {
        "layout": asdict(plan.layout),
        "passes": asdict(plan.passes),
        "device": {part.name: part.bytes for part in plan.device},
        "phases": {part.name: part.bytes for part in plan.phases},
        "reserve": plan.reserve,
        "peak": {"while": plan.peak.name, "bytes": plan.peak.bytes},
        "host": {part.name: part.bytes for part in plan.host},
        "host_node_bytes": plan.host_node_bytes,
        "file_bytes": plan.file_bytes,
        "engine": plan.engine,
        "unpacking": plan.unpacking,
        "verdicts": [asdict(verdict) for verdict in found],
    }
    return json.dumps(content, indent=2)


def _add(table: Table, parts: Sequence[Part]) -> None:
    for part in parts:
        table.add_row(part.name, _gib(part.bytes))


def _gib(count: int) -> str:
    return f"{count / GIB:.2f}" if count >= GIB // 10 else f"{count / GIB:.4f}"
