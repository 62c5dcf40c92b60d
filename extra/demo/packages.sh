# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# Installs packages through extra/install-deps and records which ones that brought; sourced by extra/quickstart.

# Where services keep their data: an installation of theirs that was not there before goes with them.
SERVICE_DIRECTORIES=(/etc/munge /var/lib/munge /var/log/munge /run/munge /etc/docker /var/lib/docker-registry /etc/slurm
    /etc/slurm-llnl /var/lib/slurm /var/log/slurm /var/lib/slurm-llnl /var/log/slurm-llnl /var/spool/slurm)

installed_packages() {
    if command -v dpkg-query >/dev/null; then
        # shellcheck disable=SC2016 # dpkg's own variables
        dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' | sed -n 's/^installed //p' | sort -u
    else
        rpm -qa --qf '%{NAME}.%{ARCH}\n' | sort -u
    fi
}

accounts() {
    cut -d: -f1 /etc/passwd | sort -u
}

present_service_directories() {
    local directory
    for directory in "${SERVICE_DIRECTORIES[@]}"; do
        if [ -d "$directory" ]; then echo "$directory"; fi
    done | sort -u
}

# install_packages GROUP…: groups of extra/install-deps.
install_packages() {
    local before_packages before_accounts before_directories status=0 line
    before_packages=$(installed_packages)
    before_accounts=$(accounts)
    before_directories=$(present_service_directories)
    "$SOURCE/extra/install-deps" "$@" || status=$?
    # Recorded also after a failure: half of them may be there.
    while read -r line; do record package "$line"; done < <(comm -13 <(echo "$before_packages") <(installed_packages))
    while read -r line; do record package-account "$line"; done < <(comm -13 <(echo "$before_accounts") <(accounts))
    while read -r line; do record package-directory "$line"; done < <(
        comm -13 <(echo "$before_directories") <(present_service_directories)
    )
    [ "$status" -eq 0 ] || die "packages are missing (see above)"
}

# would_be_removed PACKAGE…: all that the package manager would take away with them.
would_be_removed() {
    if command -v apt-get >/dev/null; then
        apt-get -s purge "$@" | sed -n 's/^\(Purg\|Remv\) \([^ ]*\).*/\2/p' | normal_names | sort -u
    else
        rpm -e --test "$@" 2>&1 | sed -n 's/.*(installed) \(.*\)/\1/p' | sort -u
    fi
}

# apt leaves out the native architecture where dpkg-query may name it (Multi-Arch: same).
normal_names() {
    local known name
    known=$(installed_packages)
    while read -r name; do
        if grep -qxF "$name" <<<"$known"; then echo "$name"; else grep -xm1 "$name:.*" <<<"$known" || echo "$name"; fi
    done
}

# purge PACKAGE…: exactly these.
purge() {
    if command -v apt-get >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 --no-auto-remove purge "$@"
    else
        rpm -e "$@"
    fi
}
