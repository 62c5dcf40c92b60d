/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Which perNodeCaches a site allows (spec: runtime contract, 8.6). as_root/nodecache.c makes them.
 */
#ifndef SHIFTER_CACHES_H
#define SHIFTER_CACHES_H

#include "as_user/config.h"
#include "as_user/volumes.h"
#include "base/error.h"

/* Does the site allow the caches among these maps? Those of a user share its limit. No file access. */
int caches_check(const struct config *config, const struct volumes *volumes, enum volume_origin origin,
                 struct error *e);

#endif
