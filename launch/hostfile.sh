#!/usr/bin/env bash
# AFA training on the hosts of a hostfile (lines "HOST slots=N"), started from one of them over ssh by pdsh:
#   launch/hostfile.sh HOSTFILE CONFIG [section.key=value ...]
# MASTER_ADDR=HOST is how all nodes reach the first one; else DeepSpeed asks it by ssh for its first address.
# MASTER_PORT=N (29500) must be free there and tells this job from others; SSH_PORT=N where sshd isn't on 22.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/forward_signals.sh
. "$here/forward_signals.sh"

refuse() {
    echo "launch/hostfile.sh: $1" >&2
    echo "usage: [MASTER_ADDR=HOST] [MASTER_PORT=29500] [SSH_PORT=22] launch/hostfile.sh HOSTFILE CONFIG" \
        "[section.key=value ...]" >&2
    exit 2
}

# remote_word ARGUMENT: quoted for the shell of the other node. DeepSpeed puts an argument that holds a blank between
# double quotes, escaping these only, and hands on all others as they are; pdsh reads %.
remote_word() {
    local word=${1//%/%%}
    if [[ $word == *' '* ]]; then
        word=${word//\\/\\\\}
        word=${word//\$/\\\$}
        echo -n "${word//\`/\\\`}"
    else
        printf '%q' "$word"
    fi
}

[ $# -ge 2 ] || refuse "HOSTFILE and CONFIG are needed"
hostfile=$1
shift
[ -r "$hostfile" ] || refuse "$hostfile: cannot be read"
[ -f "$hostfile" ] || refuse "$hostfile: not a file; without one DeepSpeed would train on this machine alone"
command -v pdsh >/dev/null 2>&1 || refuse "pdsh is not installed here (Debian: apt-get install pdsh); or see launch/node.sh"
special=$'[][:space:]"\'\\$`;&|<>()*?{}%[]'
for path in "$(pwd -P)" "$(command -v deepspeed)"; do # the program lies beside its Python
    [[ ! $path =~ $special ]] ||
        refuse "$path: DeepSpeed hands this path to the other shells without quotes; work in one of letters, digits and -_./"
done
port=${MASTER_PORT:-29500}
arguments=(--hostfile "$hostfile" --force_multi --master_port "$port")
[ -z "${MASTER_ADDR:-}" ] || arguments+=(--master_addr "$MASTER_ADDR" --no_ssh_check)
[ -z "${SSH_PORT:-}" ] || arguments+=(--ssh_port "$SSH_PORT")
words=()
for argument in "$@"; do
    words+=("$(remote_word "$argument")")
done

# The ranks are behind ssh: found on their nodes by what they were started with. One that listens is enough.
pass_on() {
    "$here/stop.sh" --hostfile "$hostfile" --signal "$1" "MASTER_PORT=$port" "${arguments_of_ranks[@]}"
}
arguments_of_ranks=("$@")

status=0
run_forwarding deaf_to_usr1 deepspeed "${arguments[@]}" --module afa_llm train "${words[@]}" training.engine=deepspeed ||
    status=$?
case $status in
    0 | 2 | 75) ;;
    # A node whose connection broke may still hold ranks; they would wait for the others until their time-out.
    *) pass_on KILL 2>/dev/null || true ;;
esac
exit "$status"
