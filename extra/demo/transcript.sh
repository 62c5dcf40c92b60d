# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# What the demonstration prints: numbered steps, each command as one could type it, its output, its time.

STEP=0
STEPS=7

die() {
    printf '\nquickstart: %s\n' "$1" >&2
    exit "${2:-1}"
}

# microseconds since the epoch
now() {
    printf '%s' "${EPOCHREALTIME/[.,]/}"
}

# took SINCE: prints the seconds gone by.
took() {
    local microseconds=$(($(now) - $1))
    printf '  (%d.%02d s)\n' $((microseconds / 1000000)) $((microseconds % 1000000 / 10000))
}

step() {
    STEP=$((STEP + 1))
    printf '\n== %d/%d  %s\n' "$STEP" "$STEPS" "$1"
}

# show PROMPT TEXT COMMAND…: prints TEXT as typed, runs COMMAND with its output in place.
show() {
    local prompt=$1 text=$2 began status=0
    shift 2
    printf '%s %s\n' "$prompt" "$text"
    began=$(now)
    # A subshell with its own errexit: in a condition it would be switched off in the functions called.
    set +e
    (set -e; "$@") </dev/null
    status=$?
    set -e
    took "$began"
    [ "$status" -eq 0 ] || die "the command above ended with status $status.
Logs: $LOGS/. Running extra/quickstart again goes on from here; extra/quickstart --remove undoes everything."
}

# show_quietly TEXT LOG COMMAND…: the same for a command whose output is of interest only when it fails.
show_quietly() {
    local text=$1 log=$LOGS/$2.log began
    shift 2
    printf '# %s\n' "$text"
    began=$(now)
    if ! "$@" >"$log" 2>&1 </dev/null; then
        tail -n 40 "$log" >&2
        die "the command above failed; the end of its output is above, all of it in $log"
    fi
    took "$began"
}
