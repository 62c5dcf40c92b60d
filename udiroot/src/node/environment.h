/* SPDX-License-Identifier: BSD-3-Clause
 *
 * One prepared environment (state.h): who holds it, who builds it, and how it is removed. All under the node's lock.
 */
#ifndef SHIFTER_ENVIRONMENT_H
#define SHIFTER_ENVIRONMENT_H

#include <stdbool.h>

#include "base/error.h"
#include "node/prepare.h"

/* Marks a new environment as being built by this process, until the descriptor that is returned is closed or the
 * process is dead. A lock of fcntl(2): the processes that fork(2) makes do not have it, and it says without being
 * taken whether somebody has. The process must not open `builder` again meanwhile. */
int environment_claim(int environment, struct error *e);
/* The mark of an environment that somebody builds, or -1. */
int environment_builder(int environment);
bool environment_is_being_built(int environment);
/* Without the node's lock: waits until that builder has finished, died or given up. An error when we are asked to
 * end. */
int environment_await(int builder, struct error *e);

int environment_hold(int environment, const char *holder, struct error *e);
/* Takes a holder off, all of them with NULL. */
void environment_release(int environment, const char *holder);
bool environment_is_unheld(int environment);

/* Removes the directory of an environment and its pin; the tree shown at udiMount goes too when it is this one's. */
int environment_remove(const struct prepare *state, const char *name, struct error *e);

#endif
