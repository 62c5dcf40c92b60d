/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/caches.h"

#include <inttypes.h>

enum { MOST_CACHES = 16 }; /* of a user in a container */

int caches_check(const struct config *config, const struct volumes *volumes, enum volume_origin origin,
                 struct error *e)
{
    uint64_t limit = config->per_node_cache_size_limit, used = 0;
    unsigned count = 0;
    const struct strings *types = &config->per_node_cache_allowed_fs_type;
    for (size_t i = 0; i < volumes->count; i++) {
        const struct volume *v = &volumes->items[i];
        if ((v->flags & VOLUME_PER_NODE_CACHE) == 0)
            continue;
        if (config->per_node_cache_path == NULL || config->mkfs_xfs_path == NULL)
            return error_set(e, 0,
                             "perNodeCache at %s: there are no caches on this system; they need perNodeCachePath and "
                             "mkfsXfsPath in udiRoot.conf",
                             v->to);
        if (types->count > 0 && !strings_contain(types, "xfs"))
            return error_set(e, 0, "perNodeCache at %s: perNodeCacheAllowedFsType does not have xfs", v->to);
        if (limit > 0 && (v->cache_size > limit || used > limit - v->cache_size))
            return error_set(e, 0,
                             "perNodeCache at %s: more than the %" PRIu64 " bytes that caches may have here "
                             "(perNodeCacheSizeLimit); ask for less",
                             v->to, limit);
        if (origin != VOLUME_OF_USER)
            continue;
        used += v->cache_size;
        if (++count > MOST_CACHES)
            return error_set(e, 0, "perNodeCache at %s: a container can have %d of them", v->to, MOST_CACHES);
    }
    return 0;
}
