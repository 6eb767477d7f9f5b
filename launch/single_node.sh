#!/usr/bin/env bash
# AFA training on all accelerators of this machine:
#   launch/single_node.sh CONFIG [section.key=value ...]
# RANKS=N takes N processes (on a machine without GPU: N processes over gloo). Output and exit code are those of `afa`.
# MASTER_PORT=N is where the ranks meet; else a free port, so that two jobs on one machine don't collide.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/forward_signals.sh
. "$here/forward_signals.sh"
if [ $# -lt 1 ]; then
    echo "usage: [RANKS=N] launch/single_node.sh CONFIG [section.key=value ...]" >&2
    exit 2
fi
port=${MASTER_PORT:-$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
arguments=(--master_port "$port")
[ -z "${RANKS:-}" ] || arguments+=(--num_accelerators "$RANKS")
if ! command -v nvidia-smi >/dev/null 2>&1; then
    export DS_ACCELERATOR=${DS_ACCELERATOR:-cpu} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    [ -n "${RANKS:-}" ] || arguments+=(--num_accelerators 1)
fi
run_forwarding deaf_to_usr1 deepspeed "${arguments[@]}" --module afa_llm train "$@" training.engine=deepspeed
