# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# The demonstration's one-machine, two-node Slurm and its batch job; sourced by extra/quickstart.
# It has a directory and ports of its own: a Slurm that the machine already runs is neither used nor touched.

SLURM=$STATE/slurm
SLURM_NODES=(node1 node2)

write_slurm_configuration() {
    local host port node ports=()
    host=$(uname -n)
    host=${host%%.*}
    port=$(choose_port slurmctld 16817)
    for node in "${SLURM_NODES[@]}"; do ports+=("$(choose_port "slurmd-$node" 16820)"); done
    make_directory "$SLURM"
    make_directory "$SLURM/controller" slurm 0700
    make_directory "$SLURM/spool"
    # The two daemons' names are one machine's: NodeHostname says whose, the ports tell them apart. No control groups:
    # a demonstration must run in a container, too.
    write_file "$SLURM/slurm.conf" root:root 0644 <<TEXT
ClusterName=quickstart
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=slurm
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$SLURM/controller
SlurmctldPidFile=$SLURM/controller/slurmctld.pid
SlurmdSpoolDir=$SLURM/spool/%n
SlurmdPidFile=$SLURM/spool/%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
PrologFlags=Alloc
PlugStackConfig=$SLURM/plugstack.conf
NodeName=${SLURM_NODES[0]} NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[0]} CPUs=2
NodeName=${SLURM_NODES[1]} NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=2
PartitionName=demo Nodes=ALL Default=YES State=UP
TEXT
    write_file "$SLURM/plugstack.conf" root:root 0644 <<TEXT
required $PREFIX/lib/shifter/shifter_slurm.so
TEXT
}

start_slurm() {
    local node tries=0
    start_service slurmctld slurm slurmctld -D -f "$SLURM/slurm.conf"
    for node in "${SLURM_NODES[@]}"; do
        start_service "slurmd-$node" root slurmd -D -N "$node" -f "$SLURM/slurm.conf"
    done
    until [ "$(SLURM_CONF=$SLURM/slurm.conf sinfo -h -o '%T %D' 2>/dev/null)" = "idle ${#SLURM_NODES[@]}" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ]; then
            tail -n 20 "$LOGS"/slurm*.log >&2
            die "the two nodes of Slurm did not come up within 30 seconds; their logs are above"
        fi
        sleep 0.1
    done
}

stop_slurm() {
    local name
    SLURM_CONF=$SLURM/slurm.conf timeout 10 scancel --user="$DEMO_ACCOUNT" 2>/dev/null || true
    for name in "${SLURM_NODES[@]/#/slurmd-}" slurmctld; do stop_service "$name"; done
}

# The batch script of the documentation, with this image's name.
write_batch_script() {
    local script
    script=$(getent passwd "$DEMO_ACCOUNT" | cut -d: -f6)/script.sh
    cat >"$script" <<TEXT
#!/bin/bash
#SBATCH --image=$SPEC

srun shifter ${1}
TEXT
    chown "$DEMO_ACCOUNT:" "$script"
}

run_batch_job() {
    local program=mpiExecutable.sh
    [ "$LOCAL" = yes ] || program="cat /etc/os-release"
    write_slurm_configuration
    show '#' "slurmctld &  slurmd -N ${SLURM_NODES[0]} &  slurmd -N ${SLURM_NODES[1]} &   (SLURM_CONF=$SLURM/slurm.conf)" start_slurm
    write_batch_script "$program"
    show_in_slurm "cat script.sh"
    show_in_slurm "sbatch --wait --nodes=2 --output=job-%j.out script.sh"
    # shellcheck disable=SC2016 # for the user's shell
    show_in_slurm 'cat "$(ls -t job-*.out | head -n 1)"'
}

show_in_slurm() {
    show '$' "$1" as_demo SLURM_CONF="$SLURM/slurm.conf" /bin/bash -c "$1"
}

slurm_what_next() {
    cat <<TEXT

Batch jobs, as any user:
    export SLURM_CONF=$SLURM/slurm.conf
    sinfo
    srun --nodes=2 --image=$SPEC shifter id
TEXT
}
