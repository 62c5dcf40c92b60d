/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Which modules and volumes a start asks for: an option, else a variable, else what the prepared container has that is
 * entered because nothing names an image (spec: runtime contract, section 5.3).
 */
#ifndef SHIFTER_REQUEST_H
#define SHIFTER_REQUEST_H

#include "as_user/config.h"
#include "as_user/modules.h"
#include "as_user/options.h"
#include "as_user/prepared.h"
#include "as_user/volumes.h"
#include "base/error.h"
#include "base/text.h"

struct request {
    const struct options *options;
    const struct strings *outer; /* the caller's environment */
    const struct prepared *prepared;
};

/* Section 3.5. */
int request_modules(const struct request *request, const struct config *config, struct modules *out, struct error *e);
/* Section 8; one --volume is enough to forget what the environment says. `out` is empty before. */
int request_volumes(const struct request *request, struct volumes *out, struct error *e);

#endif
