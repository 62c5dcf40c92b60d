/* SPDX-License-Identifier: BSD-3-Clause
 *
 * For whom a container is. Who that is say as_root/privilege.h for `shifter` and node/caller.h for `setupRoot`.
 */
#ifndef SHIFTER_CALLER_H
#define SHIFTER_CALLER_H

#include <sys/types.h>

struct caller {
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* the process's supplementary groups, without gid 0: never looked up again, so none comes back */
    size_t group_count;
};

#endif
