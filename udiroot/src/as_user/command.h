/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Which command runs in the container (spec: runtime contract, section 7.3).
 */
#ifndef SHIFTER_COMMAND_H
#define SHIFTER_COMMAND_H

#include "as_user/image.h"
#include "as_user/options.h"
#include "base/error.h"
#include "base/text.h"

struct command {
    struct strings words; /* as execve(2) wants them */
    const char *shell;    /* where no command is given: the user's own, to be tried before `words`; or NULL */
};

/* `outer`: the caller's environment; the result points into it. */
int command_choose(const struct options *options, const struct image *image, const struct strings *outer,
                   struct command *out, struct error *e);

#endif
