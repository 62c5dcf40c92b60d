/* SPDX-License-Identifier: BSD-3-Clause
 *
 * perNodeCache: a new XFS in a file of the node that has no name, so that it goes with its last user whatever happens
 * (spec: runtime contract, 8.6; W-9, sec-77).
 */
#ifndef SHIFTER_NODECACHE_H
#define SHIFTER_NODECACHE_H

#include "as_root/privilege.h"
#include "as_user/config.h"
#include "base/error.h"

/* Makes a cache of `size` bytes, the caller's own, and mounts it `nosuid,nodev` at `place`, a directory of the current
 * one. */
int nodecache_mount(const struct config *config, const struct caller *caller, uint64_t size, const char *place,
                    struct error *e);

#endif
