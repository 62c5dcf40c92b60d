# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# Starts and stops the demonstration's own processes; sourced by extra/quickstart. Nothing here knows systemd: the same
# commands work in a container and on a machine with any init, and the transcript shows them.

# start_time PID: when the process began, in clock ticks since boot (proc(5), field 22); nothing if it has ended.
# With the pid it names a process for good: a pid alone may by now be somebody else's.
start_time() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    stat=${stat##*) }
    # shellcheck disable=SC2086 # splitting is the point
    set -- $stat
    # A zombie, which only waits for its parent, counts as ended.
    [ "$1" = Z ] || printf '%s' "${20}"
}

# service_pid NAME: the pid of a running service of ours, else failure.
service_pid() {
    local pid began
    read -r pid began 2>/dev/null <"$STATE/run/$1.pid" || return 1
    [ -n "$began" ] && [ "$(start_time "$pid")" = "$began" ] || return 1
    printf '%s' "$pid"
}

# note_service NAME PID
note_service() {
    mkdir -p "$STATE/run"
    printf '%s %s\n' "$2" "$(start_time "$2")" >"$STATE/run/$1.pid"
}

# start_service NAME ACCOUNT COMMAND…: in the background, in a session of its own, output to its log.
start_service() {
    local name=$1 account=$2 pid rights=--no-new-privs
    shift 2
    if service_pid "$name" >/dev/null; then return 0; fi
    # Tasks inherit it from slurmd, and a setuid program would not be one for them.
    if [ "$account" = root ]; then rights=--; fi
    # setpriv replaces itself by the command, so the pid is the service's own.
    (cd / && exec setsid setpriv --reuid="$account" --regid="$account" --init-groups "$rights" \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "${SERVICE_ENVIRONMENT[@]}" "$@" \
        >>"$LOGS/$name.log" 2>&1 </dev/null 9>&-) &
    pid=$!
    # Until setsid has run, the process is still a copy of this shell; its start time is the same all along.
    note_service "$name" "$pid"
}

# What a service may need of the caller's environment: the way to the outside world, and nothing else.
SERVICE_ENVIRONMENT=()
for variable in http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY; do
    if [ -n "${!variable:-}" ]; then SERVICE_ENVIRONMENT+=("$variable=${!variable}"); fi
done

# stop_service NAME: asks, waits up to 20 seconds, then insists.
stop_service() {
    local pid tries=0
    if pid=$(service_pid "$1"); then
        kill -TERM "$pid" 2>/dev/null || true
        while service_pid "$1" >/dev/null && [ "$tries" -lt 200 ]; do
            sleep 0.1
            tries=$((tries + 1))
        done
        # The whole session: a service that had to be killed cannot have ended its children.
        if service_pid "$1" >/dev/null; then kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" || true; fi
    fi
    rm -f "$STATE/run/$1.pid"
}

# port_is_free PORT
port_is_free() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# choose_port NAME FIRST: the recorded port, else the first free one from FIRST on.
choose_port() {
    local port
    port=$(setting "$1")
    if [ -z "$port" ]; then
        port=$2
        while ! port_is_free "$port" || recorded setting | grep -q "=$port\$"; do port=$((port + 1)); done
        record setting "$1=$port"
    fi
    printf '%s' "$port"
}

# http_status PORT PATH: the status of a GET on 127.0.0.1, or nothing.
http_status() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' "$2" >&3
        read -r -t 5 _ status _ <&3
        printf '%s' "$status"
    ) 2>/dev/null || true
}

# await_http NAME PORT PATH: until the service answers 200; gives up when it ended or after 30 seconds.
await_http() {
    local tries=0
    while [ "$(http_status "$2" "$3")" != 200 ]; do
        tries=$((tries + 1))
        if ! service_pid "$1" >/dev/null || [ "$tries" -gt 300 ]; then
            tail -n 30 "$LOGS/$1.log" >&2
            die "the $1 does not answer on 127.0.0.1:$2; its log is above ($LOGS/$1.log)"
        fi
        sleep 0.1
    done
}

# munge_answers: whether a munged on the default socket makes and accepts credentials.
munge_answers() {
    munge -n 2>/dev/null | unmunge >/dev/null 2>&1
}

# start_munged: the machine's own munged if there is one; else one that --remove stops.
start_munged() {
    if munge_answers; then return 0; fi
    local directory tries=0
    [ -e /etc/munge/munge.key ] || { record file /etc/munge/munge.key; mungekey --create; chown munge: /etc/munge/munge.key; }
    for directory in /run/munge /var/lib/munge /var/log/munge; do
        [ -d "$directory" ] || make_directory "$directory" munge
    done
    runuser -u munge -- munged 9>&-
    while ! munge_answers; do
        tries=$((tries + 1))
        [ "$tries" -lt 50 ] || die "munged does not answer; see /var/log/munge/munged.log"
        sleep 0.1
    done
    note_service munged "$(cat /run/munge/munged.pid)"
}
