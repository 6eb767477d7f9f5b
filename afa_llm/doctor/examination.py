"""The order of an examination: every question to all nodes at once, each with a time limit. Judges nothing.

A node that falls silent keeps what it has told; the others are asked on.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from afa_llm.config import Config
from afa_llm.doctor.access import Access, agent_command, explain, ssh_command
from afa_llm.doctor.conversation import Conversation, LostError, TroubleError
from afa_llm.doctor.findings import Clock, Facts, Findings, Folder, Master, NodeFindings, RankReport, Reached, Trial
from afa_llm.doctor.hostfile import Host
from afa_llm.doctor.inputs import input_paths

PINGS = 5
PATIENCE_S = 5.0
"""How long a node waits for the others' files in the shared folder."""
RING_S = 10.0
TRIAL_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Plan:
    """What is examined, and how. hosts: none: this machine alone."""

    config: Config
    config_file: str | None
    hosts: Sequence[Host]
    access: Access
    folder: str
    """Where the launcher is started: relative paths of settings are meant from there, on every node."""
    environment: dict[str, str]
    master_address: str | None
    master_port: int
    limit_s: float
    """For one answer, and for the trial all-reduce."""


def examine(plan: Plan) -> Findings:
    """Ask everything. Takes at most a few times `plan.limit_s`; raises nothing for what is wrong with a node."""
    return asyncio.run(_Examination(plan).run())


@dataclass
class _Patient:
    findings: NodeFindings
    number: int
    line: Conversation


class _Examination:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.token = secrets.token_hex(8)
        config = plan.config
        self.patients = [_Patient(*it) for it in self._lines()]
        self.findings = Findings(
            nodes=[patient.findings for patient in self.patients],
            master=Master(address=plan.master_address, port=plan.master_port),
            with_hostfile=bool(plan.hosts),
            dtype=config.model.dtype,
            threads=config.run.threads,
            output_dir=config.run.output_dir,
            input_paths=input_paths(config, plan.config_file),
            launcher_found=shutil.which("pdsh") is not None,
            launcher_paths=(plan.folder, plan.access.python) if plan.hosts else (),
        )

    async def run(self) -> Findings:
        try:
            await self._all(self._facts)
            await self._all(self._clock)
            await self._all(self._write)
            await self._all(self._read)
            await self._all(self._unwrite)  # all files are gone before anyone takes a folder away
            self._place_master()
            await self._reach_head()
            await self._reduce()
        finally:
            await asyncio.gather(*(patient.line.close() for patient in self.patients))
        return self.findings

    def _lines(self) -> list[tuple[NodeFindings, int, Conversation]]:
        plan = self.plan
        if not plan.hosts:
            return [(NodeFindings(name="this machine", slots=None), 0, Conversation(agent_command(plan.access)))]
        return [
            (
                NodeFindings(name=host.name, slots=host.slots),
                number,
                Conversation(ssh_command(plan.access, host.name, plan.folder, plan.environment)),
            )
            for number, host in enumerate(plan.hosts)
        ]

    async def _all(self, step: Callable[[_Patient], Awaitable[None]]) -> None:
        """The step on every node that still answers, side by side."""

        async def one(patient: _Patient) -> None:
            found = patient.findings
            try:
                await step(patient)
            except (LostError, TroubleError) as error:
                found.trouble = str(error)
                host = found.name if self.plan.hosts else None
                found.mend = explain(found.trouble, host, self.plan.access, self.plan.folder)
            except ValidationError:
                found.trouble = "its afa-llm answers in another form"
                found.mend = "install the same afa-llm on every node"

        await asyncio.gather(*(one(patient) for patient in self.patients if not patient.findings.trouble))

    async def _ask(self, patient: _Patient, what: str, **fields: Any) -> Any:
        return await patient.line.ask(what, self.plan.limit_s, **fields)

    async def _facts(self, patient: _Patient) -> None:
        answer = await self._ask(patient, "facts", inputs=self.findings.input_paths)
        patient.findings.facts = Facts.model_validate(answer)

    async def _clock(self, patient: _Patient) -> None:
        """The node's time against the middle of the request; the fastest of a few requests counts."""
        tries = []
        for _ in range(PINGS):
            sent, began = time.time(), time.monotonic()
            there = TypeAdapter(float).validate_python(await self._ask(patient, "time"))
            trip = time.monotonic() - began
            tries.append(Clock(offset_s=there - (sent + trip / 2), uncertainty_s=trip / 2))
        patient.findings.clock = min(tries, key=lambda clock: clock.uncertainty_s)

    async def _write(self, patient: _Patient) -> None:
        where = {"folder": self.findings.output_dir, "token": self.token, "number": patient.number}
        patient.findings.folder = Folder.model_validate(await self._ask(patient, "write", **where))

    async def _read(self, patient: _Patient) -> None:
        count = len(self.patients)
        written = sum(p.findings.folder is not None and not p.findings.folder.trouble for p in self.patients)
        patience_s = PATIENCE_S if written == count else 0.0
        patient.findings.sees = await self._ask(patient, "read", count=count, patience_s=patience_s)

    async def _unwrite(self, patient: _Patient) -> None:
        await self._ask(patient, "unwrite")

    def _place_master(self) -> None:
        """As the launcher does: 127.0.0.1 for one machine, else the head's first address, unless it is given."""
        master, head = self.findings.master, self.findings.nodes[0]
        if master.address or not head.facts:
            return
        if not self.findings.with_hostfile:
            master.address = "127.0.0.1"
        else:
            master.address = head.facts.addresses[0] if head.facts.addresses else None

    async def _reach_head(self) -> None:
        master, head = self.findings.master, self.patients[0]
        if head.findings.trouble or not master.address:
            return
        place = {"address": master.address, "port": master.port, "token": self.token}

        async def listen(patient: _Patient) -> None:
            if patient is head:
                try:
                    await self._ask(head, "listen", **place)
                except TroubleError as trouble:
                    master.trouble = str(trouble)

        async def ring(patient: _Patient) -> None:
            answer = await self._ask(patient, "ring", **place, patience_s=RING_S)
            patient.findings.reached = Reached.model_validate(answer)

        async def hush(patient: _Patient) -> None:
            if patient is head:
                await self._ask(head, "hush")

        await self._all(listen)
        if self.findings.with_hostfile and not master.trouble and not head.findings.trouble:
            await self._all(ring)
        await self._all(hush)

    async def _reduce(self) -> None:
        """All processes of the nodes that answer, meeting at the master's place."""
        taking_part = [patient for patient in self.patients if not patient.findings.trouble]
        world = sum(patient.findings.on_trial for patient in taking_part)
        master = self.findings.master
        if not taking_part or taking_part[0] is not self.patients[0] or not master.address:
            return
        port = master.port
        if not self.findings.with_hostfile:
            port = 0  # one machine may choose any free port, as launch/single_node.sh does
        elif master.trouble:
            return
        enough = all(0 < p.findings.processes <= len(p.findings.facts.gpus) for p in taking_part if p.findings.facts)
        trial = Trial(backend="nccl" if enough else "gloo", bytes=TRIAL_BYTES, world=world, limit_s=self.plan.limit_s)
        self.findings.trial = trial
        first = 0
        firsts = {}
        for patient in taking_part:
            firsts[patient.number] = first
            first += patient.findings.on_trial

        async def reduce(patient: _Patient) -> None:
            trip = trial.model_dump() | {
                "first_rank": firsts[patient.number],
                "count": patient.findings.on_trial,
                "address": master.address,
                "port": port,
            }
            # The ranks keep the limit themselves; their node needs some time to say so.
            answer = await patient.line.ask("reduce", trial.limit_s + 20, trip=trip)
            patient.findings.ranks = TypeAdapter(list[RankReport]).validate_python(answer)

        await self._all(reduce)
