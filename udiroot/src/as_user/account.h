/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Who a uid or a name is: from libc, or from <etcPath>/passwd alone (spec: runtime contract, sections 9.7 and 9.9).
 */
#ifndef SHIFTER_ACCOUNT_H
#define SHIFTER_ACCOUNT_H

#include <sys/types.h>

#include "as_user/config.h"
#include "base/error.h"

struct account {
    char *name, *gecos, *home, *shell;
    uid_t uid;
    gid_t gid;
};

/* libc is asked when allowLibcPwdCalls or populateEtcDynamically is set: then the site wants the node's own databases.
 */
int account_of_uid(const struct config *config, uid_t uid, struct account *out, struct error *e);
int account_of_name(const struct config *config, const char *name, struct account *out, struct error *e);
void account_free(struct account *account);

#endif
