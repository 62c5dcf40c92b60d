/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The sshd of a prepared environment (spec: runtime contract, section 14; docs/adr/0016-sshd.md): the user's process,
 * and a watcher of root's above it, to which everything falls that a login leaves behind.
 */
#ifndef SHIFTER_SSHD_H
#define SHIFTER_SSHD_H

#include <stdbool.h>

#include "as_root/privilege.h"
#include "base/error.h"

/* Starts it in the namespace `container` and returns when it listens; recorded in the environment's directory. */
int sshd_start(int environment, int container, int proc, const struct caller *caller, struct error *e);
/* Does the watcher that is recorded in the environment's directory live? */
bool sshd_is_alive(int environment, int proc);
/* Ends it, its logins and all that they left; nothing to do where none is recorded. Returns when they are gone. */
int sshd_stop(int environment, int proc, struct error *e);

#endif
