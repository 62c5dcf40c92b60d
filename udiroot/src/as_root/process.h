/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What a process inherits and a setuid program must not work with: descriptors, umask, limits, signals, dumpability.
 * Remembered, made sane for the time of the set-up, given back to the command (security.md sec-20, sec-21, sec-26).
 */
#ifndef SHIFTER_PROCESS_H
#define SHIFTER_PROCESS_H

#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/error.h"

enum { PROCESS_LIMITS = 5, PROCESS_SIGNALS = 3 };

struct process {
    mode_t umask;
    struct rlimit limits[PROCESS_LIMITS];
    struct sigaction actions[PROCESS_SIGNALS];
    sigset_t mask;
    int kept_fd; /* the process manager's socket or pipe named by PMI_FD, -1 when there is none */
};

/* First act of a privileged program. Every descriptor above 2 is closed except `kept_fd`: the value of the caller's
 * PMI_FD (may be NULL) when that is a socket or pipe, because Slurm and Hydra talk to an MPI rank through it. */
int process_begin(int argc, const char *pmi_fd, struct process *out, struct error *e);
/* For root's programs: from now on SIGTERM, SIGINT and SIGHUP wait, unless they are ignored, so that nothing stays
 * half-made. */
void process_hold_signals(void);
enum { PROCESS_SIGNAL_MILLISECONDS = 200 }; /* between two looks, by what waits for something else */
/* Does one of those wait that are held? Then it is an error. */
int process_check_signals(struct error *e);
/* Closes what the set-up opened; umask, limits and signals become the caller's again. Last act before the command. */
int process_restore(const struct process *process, struct error *e);
/* In the container, its root being the directory we are in: no link and no magic link leads `path` out of it. -1 with
 * errno. */
int process_change_directory(const char *path);

#endif
