# shellcheck shell=bash
# Sourced by the launch scripts: run a launcher, hand signals on to the ranks, leave no process behind. Linux, bash >= 4.4.
#
# DeepSpeed's launchers stand between a script and the ranks and don't pass signals on in a way that leaves time for a
# checkpoint: the outer one (`deepspeed`) dies and leaves its children running, the inner one
# (deepspeed.launcher.launch, one on each node) kills each rank 30 s after SIGTERM and dies of SIGUSR1. So the launcher
# gets a process group of its own, a signal goes to the ranks in it and to nobody else, and the launcher is waited for.

# run_forwarding COMMAND [ARGUMENT ...]: returns the exit code of COMMAND, which must replace its shell (exec).
#   SIGUSR1 goes to the ranks as it is, SIGTERM and SIGHUP as SIGTERM: checkpoint and exit code 75.
#   SIGINT once: the ranks are interrupted (130, no checkpoint). Twice: everything is killed.
# A caller may redefine pass_on.
run_forwarding() {
    local asked="" passing interrupts=0 child nap status=0
    trap 'asked=USR1' USR1
    trap 'asked=TERM' TERM HUP
    trap 'asked=INT; interrupts=$((interrupts + 1))' INT
    set -m  # a process group of its own: Ctrl-C and kill reach the scripts, not the launcher behind our back
    ("$@") </dev/null &
    child=$!
    set +m
    while kill -0 "$child" 2>/dev/null; do
        if [ "$interrupts" -gt 1 ]; then
            pass_on KILL "$child" || true
            # Not SIGTERM: over ssh `deepspeed` answers it by `pkill -f` on all hosts, which hits your other jobs too.
            kill -s KILL -- "-$child" 2>/dev/null || true
        elif [ -n "$asked" ]; then
            passing=$asked asked=""
            pass_on "$passing" "$child" || asked=${asked:-$passing}
        fi
        sleep 1 &  # a poll, because a rank may not listen yet; a signal ends the wait at once
        nap=$!
        wait "$nap" || true
        kill "$nap" 2>/dev/null || true
    done
    trap '' USR1 TERM HUP INT  # the rest takes seconds
    wait "$child" || status=$?
    if end_group "$child" 5; then
        echo "launch: processes that outlived their launcher were ended" >&2
        [ "$status" -ne 0 ] || status=1  # `deepspeed` reports 0 where its inner launcher was killed
    fi
    [ "$interrupts" -lt 2 ] || status=130
    trap - USR1 TERM HUP INT
    return "$status"
}

# deaf_to_usr1 COMMAND ...: some batch systems send SIGUSR1 to every process; the launchers must outlive it. The ranks
# inherit the deafness until they listen.
deaf_to_usr1() {
    trap '' USR1
    exec "$@"
}

# pass_on SIGNAL LAUNCHER_PID: signal the ranks of our launcher that listen. Fails where there is none (asked again later).
pass_on() {
    local pid ranks=()
    for pid in $(members_of_group "$2"); do
        if is_rank "$pid" && listens "$pid" "$1"; then
            ranks+=("$pid")
        fi
    done
    [ "${#ranks[@]}" -gt 0 ] || return 1
    echo "launch: SIG$1 passed on to process ${ranks[*]}" >&2
    kill -s "$1" "${ranks[@]}" 2>/dev/null || true
}

# members_of_group GROUP: the pids of its living processes.
members_of_group() {
    local line entry state parent group
    for entry in /proc/[0-9]*/stat; do
        { read -r line <"$entry"; } 2>/dev/null || continue
        read -r state parent group _ <<<"${line##*) }"  # the name before it may hold blanks and brackets
        if [ "$group" = "$1" ] && [ "$state" != Z ]; then
            entry=${entry#/proc/}
            echo "${entry%/stat}"
        fi
    done
}

# is_rank PID: whether DeepSpeed's launcher of this node started it.
is_rank() {
    local line parent word words=()
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    read -r _ parent _ <<<"${line##*) }"
    { mapfile -d '' -t words <"/proc/$parent/cmdline"; } 2>/dev/null || return 1
    for word in "${words[@]}"; do
        [ "$word" != deepspeed.launcher.launch ] || return 0
    done
    return 1
}

# listens PID SIGNAL: whether the process has a handler for the signal, so that it isn't killed while it starts or ends.
listens() {
    local key value
    [ "$2" != KILL ] || return 0
    while read -r key value; do
        if [ "$key" = SigCgt: ]; then
            (((16#$value >> ($(kill -l "$2") - 1)) & 1))
            return
        fi
    done 2>/dev/null <"/proc/$1/status"
    return 1
}

# end_group GROUP SECONDS: give it that long to end by itself, then SIGTERM, then SIGKILL. Fails where nothing was left.
end_group() {
    local waited=0 signal
    for signal in "" TERM KILL; do
        [ -z "$signal" ] || kill -s "$signal" -- "-$1" 2>/dev/null || true
        waited=0
        while [ -n "$(members_of_group "$1")" ]; do
            [ "$waited" -lt $((2 * $2)) ] || continue 2
            sleep 0.5
            waited=$((waited + 1))
        done
        [ -n "$signal" ]
        return
    done
}
