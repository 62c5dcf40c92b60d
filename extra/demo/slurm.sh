# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# The demonstration's one-machine, two-node Slurm; sourced by extra/quickstart.

run_batch_job() { die "not yet"; }
stop_slurm() { :; }
slurm_what_next() { :; }
