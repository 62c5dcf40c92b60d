/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Who runs us, the switch between the caller's and root's rights, and the final drop (spec: runtime contract, section
 * 12).
 */
#ifndef SHIFTER_PRIVILEGE_H
#define SHIFTER_PRIVILEGE_H

#include "as_user/caller.h"
#include "base/error.h"

/* The caller of a setuid-root program: the real ids, which must not be 0. */
int caller_of_process(struct caller *out, struct error *e);
/* Gid 0 is left out. */
void caller_add_group(struct caller *caller, gid_t gid);

/* Effective ids and the group list, called as root and as the caller in turn: the process stays undumpable, so the
 * caller cannot trace it in either state. Failure to change is not survivable: one line on standard error and
 * _exit(EXIT_SHIFTER). */
void privilege_as_user(const struct caller *caller);
void privilege_as_root(void);

/* Drops everything for good and reads it back. `proc`: descriptor of the host's procfs. */
int privilege_drop(const struct caller *caller, int proc, struct error *e);

#endif
