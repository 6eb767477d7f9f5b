#!/usr/bin/env bash
# Ask a running job to write a checkpoint and stop (exit code 75; run.resume=true continues it):
#   launch/stop.sh [--hostfile HOSTFILE] [--signal USR1] WORD [WORD ...]
# Signals the ranks of your own jobs whose command line has every WORD as a whole argument (the CONFIG, run.name=mine) or
# whose environment has it (MASTER_PORT=29500). One rank that hears it is enough. Without a hostfile: on this machine;
# with one: on all its hosts, by pdsh; there this script must be at the same path. Exit code 1 where no rank was found.
# --signal INT interrupts, KILL kills, both without a checkpoint.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/forward_signals.sh
. "$here/forward_signals.sh"

refuse() {
    echo "launch/stop.sh: $1" >&2
    echo "usage: [SSH_PORT=22] launch/stop.sh [--hostfile HOSTFILE] [--signal USR1|TERM|INT|KILL] WORD [WORD ...]" >&2
    exit 2
}

# has_words PID WORD ...: whether each is an argument of the process or a NAME=value of its environment.
has_words() {
    local pid=$1 word known=() found
    shift
    { mapfile -d '' -t known < <(cat "/proc/$pid/cmdline" "/proc/$pid/environ"); } 2>/dev/null
    for word in "$@"; do
        found=no
        for have in "${known[@]}"; do
            [ "$have" != "$word" ] || found=yes
        done
        [ "$found" = yes ] || return 1
    done
}

signal_here() {
    local folder pid ranks=()
    for folder in /proc/[0-9]*; do
        pid=${folder#/proc/}
        if [ -O "$folder" ] && is_rank "$pid" && has_words "$pid" "$@" && listens "$pid" "$signal"; then
            ranks+=("$pid")
        fi
    done
    [ "${#ranks[@]}" -gt 0 ] || return 1
    kill -s "$signal" "${ranks[@]}" 2>/dev/null || true
    echo "SIG$signal sent to process ${ranks[*]} on $(uname -n)" >&2
}

# One remote shell reads the words: each in single quotes, % doubled for pdsh.
quoted() {
    local word
    for word in "$@"; do
        word=${word//%/%%}
        echo -n " '${word//\'/\'\\\'\'}'"
    done
}

signal_everywhere() {
    local hosts answer
    hosts=$(sed -nE 's/^[[:space:]]*([^#[:space:]]+)[[:space:]]+slots=.*/\1/p' "$hostfile" | paste -sd, -)
    [ -n "$hosts" ] || refuse "$hostfile: has no line HOST slots=N"
    [ -z "${SSH_PORT:-}" ] || export PDSH_SSH_ARGS_APPEND="${PDSH_SSH_ARGS_APPEND:-} -p $SSH_PORT"
    answer=$(PDSH_RCMD_TYPE=ssh pdsh -f 1024 -t 10 -u 60 -w "$hosts" \
        "$(quoted "$here/stop.sh" --signal "$signal" "$@")" 2>&1 </dev/null) || true
    sed '/^$/d; /ssh exited with exit code 1$/d' <<<"$answer" >&2 # 1: a host without a rank that listens
    [[ $answer == *"SIG$signal sent to process"* ]]
}

hostfile="" signal=USR1
while [ $# -gt 0 ]; do
    case $1 in
        --hostfile | --signal) [ $# -ge 2 ] || refuse "$1: needs a value" ;;
        --*) refuse "$1: unknown option" ;;
        *) break ;;
    esac
    if [ "$1" = --hostfile ]; then hostfile=$2; else signal=$2; fi
    shift 2
done
[ $# -gt 0 ] || refuse "which job? give an argument of its command, such as run.name=mine"
[[ $signal =~ ^(USR1|TERM|INT|KILL)$ ]] || refuse "--signal $signal: must be USR1, TERM, INT or KILL"
if [ -n "$hostfile" ]; then
    [ -r "$hostfile" ] || refuse "$hostfile: cannot be read"
    command -v pdsh >/dev/null 2>&1 || refuse "pdsh is not installed here; run this script on each node without --hostfile"
    signal_everywhere "$@"
else
    signal_here "$@"
fi
