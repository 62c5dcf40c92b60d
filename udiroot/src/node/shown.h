/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The tree of a prepared container at udiMount, for programs that look at <udiMount>/var/shifterConfig.json, as the
 * contract has it. environment.c takes it away.
 */
#ifndef SHIFTER_SHOWN_H
#define SHIFTER_SHOWN_H

#include "base/error.h"
#include "node/prepare.h"

/* A directory that the site uses for something would vanish below a shown tree, and all mounts in it with
 * unsetupRoot. */
int shown_check(const struct prepare *state, int proc, struct error *e);
/* Marks the environment and shows its tree, unless something is mounted there already. udiMount is open to every user of
 * the node, so trees are not shown of an image that has an ACL, that their user can write, or that have his volumes,
 * which may come out of closed directories, or a cache, where what he writes is his alone: that is the caller's part. */
int shown_attach(const struct prepare *state, int proc, int environment, int tree, struct error *e);

#endif
