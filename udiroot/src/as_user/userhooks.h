/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Programs of the site that run in the container, as the user, before his command (spec: runtime contract, section 13).
 */
#ifndef SHIFTER_USERHOOKS_H
#define SHIFTER_USERHOOKS_H

#include "as_root/process.h"
#include "as_user/modules.h"
#include "base/error.h"

/* Those of the modules, one after the other, each to its end; while SIGCHLD is not ignored. `workdir`: NULL, or the
 * directory of the container they start in. */
int userhooks_run(const struct modules *modules, const struct process *process, const char *workdir, struct error *e);

#endif
