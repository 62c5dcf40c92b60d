# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# What the demonstration changed on this machine, written down before it is changed, so that it can be undone.
# Sourced by extra/quickstart. One line per fact: KIND VALUE; kinds are package, account, directory, file, setting.

STATE=/var/lib/shifter-quickstart
RECORD=$STATE/record
LOGS=$STATE/log

# record KIND VALUE: once each.
record() {
    grep -qsxF "$1 $2" "$RECORD" || printf '%s %s\n' "$1" "$2" >>"$RECORD"
}

# recorded KIND: the values, oldest first.
recorded() {
    [ -e "$RECORD" ] || return 0
    sed -n "s/^$1 //p" "$RECORD"
}

# is_recorded KIND VALUE
is_recorded() {
    grep -qsxF "$1 $2" "$RECORD"
}

# setting NAME: the recorded value, or nothing.
setting() {
    recorded setting | sed -n "s/^$1=//p" | tail -n 1
}

# make_directory PATH [OWNER [MODE]]: creates and records it; one that was there is left as it is.
make_directory() {
    local missing=$1
    if [ -d "$1" ]; then
        is_recorded directory "$1" || return 0
    fi
    local chain=()
    while [ ! -d "$missing" ]; do
        chain=("$missing" "${chain[@]}")
        missing=$(dirname "$missing")
    done
    for missing in "${chain[@]}"; do
        record directory "$missing"
        install -d -m 0755 "$missing"
    done
    install -d -m "${3:-0755}" -o "${2:-root}" -g "${2:-root}" "$1"
}

# write_file PATH OWNER:GROUP MODE: standard input becomes the file in one step. One that is not ours is refused.
write_file() {
    if [ -e "$1" ] && ! is_recorded file "$1"; then
        die "$1 exists and was not made by the quickstart; it is left alone.
The quickstart is for a machine without a site's own configuration; move that file away if it is not needed."
    fi
    record file "$1"
    cat >"$1.new"
    chown "$2" "$1.new"
    chmod "$3" "$1.new"
    mv "$1.new" "$1"
}

# make_account NAME HOME useradd-arguments…: creates and records it, unless the machine has it.
make_account() {
    local name=$1
    shift
    if ! getent passwd "$name" >/dev/null; then
        record account "$name"
        useradd "$@" "$name"
    fi
}
