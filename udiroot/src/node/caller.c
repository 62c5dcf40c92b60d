/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/caller.h"

#include <grp.h>

#include "base/text.h"

int caller_of_account(const char *user, uid_t uid, gid_t gid, struct caller *out, struct error *e)
{
    *out = (struct caller){.uid = uid, .gid = gid};
    if (uid == 0 || gid == 0)
        return error_set(e, 0, "no container for uid 0 or gid 0 (user %s, uid %u, gid %u); name an ordinary user", user,
                         (unsigned)uid, (unsigned)gid);
    int count = 64;
    CLEANUP_FREE gid_t *groups = text_alloc((size_t)count * sizeof *groups);
    while (getgrouplist(user, gid, groups, &count) < 0) {
        if (count > 65536)
            return error_set(e, 0, "user %s has more than 65536 groups", user);
        groups = text_grow(groups, (size_t)(count *= 2), sizeof *groups);
    }
    for (int i = 0; i < count; i++)
        caller_add_group(out, groups[i]);
    return 0;
}
