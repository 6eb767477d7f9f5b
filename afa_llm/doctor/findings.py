"""What the doctor finds out: filled in by `examination`, read by the judge, printed by `--json`.

Answers of other machines are checked against these types before anything is done with them.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Comes from a node. Unknown keys are left aside: another version of afa-llm may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Gpu(Answer):
    name: str
    free_bytes: int
    total_bytes: int
    bfloat16: bool
    """In hardware; emulation does not count."""


class Input(Answer):
    """A file or folder that a setting names, as a node sees it."""

    fingerprint: str | None
    """Equal where contents are equal (see inputs.py); None: not there."""
    cached: bool | None = None
    """For a model's hub name: whether it lies in the node's hub cache. None: does not apply."""
    trouble: str | None = None
    """Why what is there cannot be read."""


class Folder(Answer):
    """run.output_dir on a node."""

    path: str
    trouble: str | None
    """Why nothing can be written there."""
    free_bytes: int | None


class Facts(Answer):
    """One node by itself."""

    hostname: str
    boot_id: str
    """Differs from machine to machine and from boot to boot; empty where the system has none."""
    python: str
    packages: dict[str, str | None]
    """Installed version by name of distribution; None: not installed."""
    unfit: dict[str, str] = {}
    """Packages that cannot be imported beside this torch: name -> version and error."""
    afa_llm: str
    """Version and fingerprint of its code: two checkouts may carry the same version."""
    cuda: str | None
    nccl: str | None
    driver: str | None
    """Version of the NVIDIA driver, whether or not torch can use it."""
    gpus: tuple[Gpu, ...]
    cores: int
    """That this process may use."""
    environment: dict[str, str]
    """Those of local_facts.WATCHED that are set."""
    interfaces: tuple[str, ...]
    """Names of network interfaces."""
    addresses: tuple[str, ...]
    """As `hostname -I` lists them: no loopback."""
    own_address: str | None
    """What the node's own host name resolves to: gloo's default address."""
    shared_memory_bytes: int | None
    """Size of /dev/shm."""
    open_files: int
    locked_memory_bytes: int
    """Soft limits; -1: unlimited."""
    infiniband: bool
    inputs: dict[str, Input]
    """By the setting that names it."""


class Clock(Answer):
    """Of a node against the machine that asks."""

    offset_s: float
    uncertainty_s: float
    """Half of the request's round trip."""


class Reached(Answer):
    """A node's try to reach the head node at the master address and port."""

    resolved: str | None
    trouble: str | None
    seconds: float | None


class RankReport(Answer):
    """One process of the trial all-reduce."""

    rank: int
    stage: str
    """The last one it reached: none, started, joined, reduced."""
    seconds: float | None = None
    """Median of one all-reduce."""
    correct: bool | None = None
    error: str | None = None


class NodeFindings(BaseModel):
    """All about one node. `None` in a field: not asked, or no answer."""

    model_config = ConfigDict(validate_assignment=True)

    name: str
    slots: int | None
    """Of the hostfile; None without one."""
    trouble: str | None = None
    """Why it cannot be asked (any more)."""
    mend: str = ""
    facts: Facts | None = None
    clock: Clock | None = None
    folder: Folder | None = None
    sees: list[int] | None = None
    """Numbers of the nodes whose file in run.output_dir it reads."""
    reached: Reached | None = None
    ranks: list[RankReport] | None = None

    @property
    def processes(self) -> int:
        """That the launcher would start there. Without a hostfile: one a GPU; two where there is none, for a trial."""
        if self.slots is not None:
            return self.slots
        return len(self.facts.gpus) or 2 if self.facts else 0

    @property
    def on_trial(self) -> int:
        """Processes of the trial all-reduce: as many, but no more than a node can carry if its slots are a slip."""
        return min(self.processes, max(2, self.facts.cores, len(self.facts.gpus))) if self.facts else 0


class Master(BaseModel):
    """Where the ranks meet."""

    address: str | None
    port: int
    trouble: str | None = None
    """Why the head node cannot listen there."""


class Trial(BaseModel):
    """The trial all-reduce as a whole."""

    backend: str
    bytes: int
    world: int
    limit_s: float


class Findings(BaseModel):
    nodes: list[NodeFindings]
    """In the hostfile's order; the first is the head node."""
    master: Master
    trial: Trial | None = None
    with_hostfile: bool
    dtype: str
    """model.dtype"""
    threads: int
    """run.threads"""
    output_dir: str
    input_paths: dict[str, str] = Field(default_factory=dict)
    """setting -> path or hub name"""
    launcher_found: bool = True
    """Whether pdsh, the launcher's default way to several nodes, is installed here."""
    launcher_paths: tuple[str, ...] = ()
    """The folder and the interpreter that the launcher names to every node."""

    @property
    def answered(self) -> list[NodeFindings]:
        """Nodes that told their facts."""
        return [node for node in self.nodes if node.facts is not None]
