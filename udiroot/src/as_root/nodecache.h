/* SPDX-License-Identifier: BSD-3-Clause
 *
 * perNodeCache: a new XFS in a file of the node that has no name, so that it goes with its last user whatever happens
 * (spec: runtime contract, 8.6; W-9, sec-77).
 */
#ifndef SHIFTER_NODECACHE_H
#define SHIFTER_NODECACHE_H

#include "as_root/privilege.h"
#include "as_user/config.h"
#include "as_user/volumes.h"
#include "base/error.h"

/* Does the site allow the caches among these maps? Those of a user share its limit. No file access. */
int nodecache_check(const struct config *config, const struct volumes *volumes, enum volume_origin origin,
                    struct error *e);
/* Makes a cache of `size` bytes, the caller's own, and mounts it `nosuid,nodev` at `place`, a directory of the current
 * one. */
int nodecache_mount(const struct config *config, const struct caller *caller, uint64_t size, const char *place,
                    struct error *e);

#endif
