# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# Undoes what the record says the demonstration did, and nothing else; sourced by extra/quickstart.

remove_everything() {
    if [ ! -e "$RECORD" ]; then
        echo "Nothing to remove: the quickstart has left nothing on this machine."
        return 0
    fi
    echo "Removing what the quickstart made on this machine:"
    stop_everything
    remove_installation
    remove_accounts
    remove_recorded_files
    remove_packages
    rm -rf "$STATE"
    echo "Done: the machine is as it was before."
}

stop_everything() {
    local name
    echo "- stopping the demonstration's processes"
    if [ -e "$STATE/slurm/slurm.conf" ]; then stop_slurm; fi
    for name in gateway registry; do stop_service "$name"; done
    end_processes_of_accounts
    if [ -x "$(setting prefix)/sbin/unsetupRoot" ] && [ -e "$SYSCONFDIR/udiRoot.conf" ]; then
        "$(setting prefix)/sbin/unsetupRoot" >/dev/null 2>&1 || true
    fi
    # Deepest first; loop devices free themselves with their last mount.
    awk -v below="$STATE/" 'index($2, below) == 1 { print $2 }' /proc/self/mounts | sort -r |
        while read -r name; do umount -l "$name" || true; done
    stop_service munged
}

# Containers that users of ours still run would keep files and accounts busy.
end_processes_of_accounts() {
    local account uid process
    while read -r account; do
        uid=$(id -u "$account" 2>/dev/null) || continue
        for process in /proc/[0-9]*; do
            [ "$(stat -c %u "$process" 2>/dev/null)" = "$uid" ] || continue
            kill -KILL "${process#/proc/}" 2>/dev/null || true
        done
    done < <(recorded account)
}

remove_installation() {
    local prefix
    prefix=$(setting prefix)
    [ -n "$prefix" ] && [ -e "$STATE/source/Makefile" ] || return 0
    echo "- removing the programs below $prefix"
    make -s -C "$STATE/source" uninstall PREFIX="$prefix" SYSCONFDIR="$SYSCONFDIR" >/dev/null 2>&1 || true
    if is_recorded directory "$prefix"; then rm -rf --one-file-system "$prefix"; fi
}

remove_accounts() {
    local account
    while read -r account; do
        echo "- removing the account $account"
        userdel --remove "$account" 2>/dev/null || userdel "$account" 2>/dev/null || true
        if getent group "$account" >/dev/null; then groupdel "$account" || true; fi
    done < <(recorded account | tac)
}

remove_recorded_files() {
    local path
    while read -r path; do rm -f "$path"; done < <(recorded file)
    # Innermost first; what others have put there meanwhile keeps a directory.
    while read -r path; do
        case $path in "$STATE"*) ;; *) [ ! -d "$path" ] || rmdir --ignore-fail-on-non-empty "$path" ;; esac
    done < <(recorded directory | tac)
}

# Only packages that the quickstart itself brought, and only if nothing that came later needs them.
remove_packages() {
    local packages others
    mapfile -t packages < <(recorded package)
    [ ${#packages[@]} -gt 0 ] || return 0
    mapfile -t packages < <(comm -12 <(printf '%s\n' "${packages[@]}" | sort -u) <(installed_packages))
    [ ${#packages[@]} -gt 0 ] || return 0
    echo "- removing the ${#packages[@]} packages it had installed"
    others=$(comm -13 <(printf '%s\n' "${packages[@]}") <(would_be_removed "${packages[@]}"))
    if [ -n "$others" ]; then
        echo "  kept, because these were installed later and need some of them: ${others//$'\n'/ }"
        echo "  (the packages: ${packages[*]})"
        return 0
    fi
    purge "${packages[@]}" >"$LOGS/purge.log" 2>&1 || { tail -n 20 "$LOGS/purge.log" >&2; die "packages were not removed"; }
    remove_leftovers_of_packages
}

# Some packages leave the account of their service and its data behind.
remove_leftovers_of_packages() {
    local name
    while read -r name; do
        if getent passwd "$name" >/dev/null; then userdel "$name" 2>/dev/null || true; fi
        if getent group "$name" >/dev/null; then groupdel "$name" 2>/dev/null || true; fi
    done < <(recorded package-account)
    while read -r name; do
        if [ -d "$name" ]; then rm -rf --one-file-system "$name"; fi
    done < <(recorded package-directory)
}
