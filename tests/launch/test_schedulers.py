"""SLURM's script and Kubernetes' manifest. Neither is here: shell scripts stand in for their part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from launched import LAUNCH, ranks_of

SCONTROL = """
case "$1" in
    show) printf '127.0.0.1\\n127.0.0.2\\n' ;;
    requeue) echo "requeued $2" >>"$TEST_FOLDER/scontrol.log" ;;
esac
"""
# A task on each node, which gets srun's SIGUSR1; srun gives the highest exit code.
SRUN = """
while [[ "$1" == --* ]]; do
    case "$1" in *=*) shift ;; *) shift 2 ;; esac
done
trap 'kill -s USR1 "${tasks[@]}"' USR1
for SLURM_NODEID in 0 1; do
    export SLURM_NODEID
    "$@" &
    tasks+=($!)
done
highest=0
for task in "${tasks[@]}"; do
    while kill -0 "$task" 2>/dev/null; do sleep 0.2; done
    code=0; wait "$task" || code=$?
    [ "$code" -le "$highest" ] || highest=$code
done
exit "$highest"
"""
ALLOCATION = {"SLURM_JOB_ID": "12345678", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
ALLOCATION |= {"SLURM_SUBMIT_DIR": str(LAUNCH.parent), "SLOTS": "1"}


def requeued(tmp_path: Path) -> bool:
    return (tmp_path / "scontrol.log").exists()


@pytest.mark.parametrize("code", [0, 1, 75])
def test_slurm_starts_every_node_and_passes_its_code_on(
    start: Callable, programs: Callable, tmp_path: Path, code: int
) -> None:
    """75 without a signal to the batch script (somebody stopped the job) doesn't go back into the queue."""
    programs("scontrol", SCONTROL)
    programs("srun", f'printf "%s|" "$@" $NODES $SLOTS $MASTER_ADDR $MASTER_PORT; exit {code}')
    found, output = start("slurm.sbatch", "c.yaml", "a.b=[1, 2]", **ALLOCATION).end()
    assert found == code, output
    rest = f"{LAUNCH}/node.sh|c.yaml|a.b=[1, 2]|run.resume=true|2|1|127.0.0.1|25678|"
    assert output.endswith(rest), output
    assert not requeued(tmp_path)


@pytest.mark.slow
def test_slurm_time_limit_stops_the_ranks_and_requeues(
    start: Callable, programs: Callable, place: Path, tmp_path: Path
) -> None:
    programs("scontrol", SCONTROL)
    programs("srun", SRUN)
    script = start("slurm.sbatch", "c.yaml", **ALLOCATION)
    notes = ranks_of(place, 2)
    assert [note["WORLD_SIZE"] for note in notes] == ["2", "2"]
    assert notes[1]["MASTER_ADDR"] == "127.0.0.1" and notes[1]["MASTER_PORT"] == "25678"
    script.send("SIGUSR1")
    code, output = script.end()
    assert code == 75, output
    assert all((place / f"stopped_{rank}").read_text() == "SIGUSR1" for rank in range(2))
    assert (tmp_path / "scontrol.log").read_text() == "requeued 12345678\n"


def test_kubernetes_manifest_fits_the_script(start: Callable, programs: Callable) -> None:
    documents = {item["kind"]: item for item in yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())}
    job, service = documents["Job"], documents["Service"]
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    variables = {item["name"]: item["value"] for item in container["env"]}
    assert job["spec"]["completionMode"] == "Indexed"
    assert int(variables["NODES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(variables["SLOTS"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    name = job["metadata"]["name"]
    assert variables["MASTER_ADDR"] == f"{name}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    chosen = [service["spec"]["selector"], documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]]
    assert chosen == [{"job-name": name}] * 2
    assert (LAUNCH.parent / container["command"][0]).exists() and (LAUNCH.parent / container["args"][0]).exists()
    programs("deepspeed", 'echo "$@"')
    script = Path(container["command"][0]).name
    code, output = start(script, *container["args"], **variables, JOB_COMPLETION_INDEX="1").end()
    assert code == 0, output
    assert "--node_rank 1 --master_addr afa-0.afa --master_port 29500 --module afa_llm train" in output
