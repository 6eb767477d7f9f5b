#!/usr/bin/env bash
# This node's part of a job on several nodes, without ssh: start it once on every node (by hand, by srun, as a container).
#   NODES=2 NODE_RANK=0 SLOTS=8 MASTER_ADDR=node-0 MASTER_PORT=29500 launch/node.sh CONFIG [section.key=value ...]
# NODES how many, NODE_RANK which of them this is (from 0; else the index that Kubernetes or SLURM gives), SLOTS processes
# on each, MASTER_ADDR:MASTER_PORT where node 0 is reached by all. The same on every node but for NODE_RANK.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/forward_signals.sh
. "$here/forward_signals.sh"

refuse() {
    echo "launch/node.sh: $1" >&2
    echo "usage: NODES=N NODE_RANK=R SLOTS=S MASTER_ADDR=HOST [MASTER_PORT=29500] launch/node.sh CONFIG" \
        "[section.key=value ...]" >&2
    exit 2
}

[ $# -ge 1 ] || refuse "CONFIG is missing"
rank=${NODE_RANK:-${JOB_COMPLETION_INDEX:-${SLURM_NODEID:-}}}
for setting in "NODES=${NODES:-}" "NODE_RANK=$rank" "SLOTS=${SLOTS:-}" "MASTER_PORT=${MASTER_PORT:=29500}"; do
    [[ ${setting#*=} =~ ^(0|[1-9][0-9]*)$ ]] || refuse "$setting: must be a whole number"
done
[ "$rank" -lt "$NODES" ] || refuse "NODE_RANK=$rank: must be below NODES=$NODES"
[ "$SLOTS" -gt 0 ] || refuse "SLOTS=$SLOTS: must be at least 1"
[ -n "${MASTER_ADDR:-}" ] || refuse "MASTER_ADDR is missing: name or address of node 0"

# The launcher takes the shape of the job from a hostfile; without ssh the names in it are never looked up.
hostfile=$(mktemp)
trap 'rm -f "$hostfile"' EXIT
for ((node = 0; node < NODES; node++)); do
    echo "node-$node slots=$SLOTS"
done >"$hostfile"
if ! command -v nvidia-smi >/dev/null 2>&1; then
    export DS_ACCELERATOR=${DS_ACCELERATOR:-cpu} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
run_forwarding deaf_to_usr1 deepspeed --hostfile "$hostfile" --no_ssh --node_rank "$rank" \
    --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" --module afa_llm train "$@" training.engine=deepspeed
