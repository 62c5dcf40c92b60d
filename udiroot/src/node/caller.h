/* SPDX-License-Identifier: BSD-3-Clause
 *
 * For whom setupRoot prepares a container: nobody has called it with that user's rights.
 */
#ifndef SHIFTER_NODE_CALLER_H
#define SHIFTER_NODE_CALLER_H

#include "as_root/privilege.h"
#include "base/error.h"

/* A named account, with the groups that the system's databases know of it. */
int caller_of_account(const char *user, uid_t uid, gid_t gid, struct caller *out, struct error *e);

#endif
