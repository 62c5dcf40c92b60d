/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Programs of the site that root runs while a container is built (spec: runtime contract, sections 9.5 and 13; W-10,
 * W-38; docs/adr/0010-modules.md).
 */
#ifndef SHIFTER_HOOKS_H
#define SHIFTER_HOOKS_H

#include "base/error.h"

#ifndef HOOK_SECONDS /* tests do not wait so long */
#define HOOK_SECONDS 60
#endif

/* Runs the program arguments[0], which only root may have written, in `directory` and to its end, for at most
 * `seconds`: as root alone, with a constant environment, no terminal, no descriptor of ours and nothing to read (or
 * `input`, when above 0). What it says is shown when it fails. `name`: the key that names it, for the message. */
int hook_run(const char *name, const char *const *arguments, int directory, int input, unsigned seconds,
             struct error *e);

#endif
