/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Programs of the site that root runs while a container is built (spec: runtime contract, sections 9.5 and 13; W-10,
 * W-38; docs/adr/0010-modules.md).
 */
#ifndef SHIFTER_HOOKS_H
#define SHIFTER_HOOKS_H

#include "base/error.h"

/* Runs `path`, which only root may have written, in `directory` and to its end: as root alone, with a constant
 * environment, no terminal, nothing to read and no descriptor of ours. What it says is shown when it fails. `name`: of
 * the hook, for the message. */
int hook_run(const char *name, const char *path, int directory, struct error *e);

#endif
