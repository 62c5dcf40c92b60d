/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The environment of the container's command (spec: runtime contract, section 11.2).
 */
#ifndef SHIFTER_CONTAINER_ENVIRON_H
#define SHIFTER_CONTAINER_ENVIRON_H

#include "as_user/config.h"
#include "as_user/image.h"
#include "as_user/modules.h"
#include "as_user/options.h"
#include "base/error.h"
#include "base/text.h"

struct environ_sources {
    const struct options *options;
    const struct strings *outer; /* the caller's environment, as the loader of a setuid program left it */
    int process_environ;         /* environ file of this process, proc(5); only read with --keepenv */
    const struct image *image;
    const char *request; /* as typed, or NULL */
    const struct modules *modules;
    const struct config *config;
};

/* `origins`: for each variable NAME=origin, or NULL when nobody asks. Opens --env-file: call it with the user's rights. */
int container_environ_make(const struct environ_sources *sources, struct strings *out, struct strings *origins,
                           struct error *e);

#endif
