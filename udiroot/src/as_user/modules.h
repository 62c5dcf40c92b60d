/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Which of the site's modules are active (spec: runtime contract, section 3.5; docs/adr/0010-modules.md). Text only.
 */
#ifndef SHIFTER_MODULES_H
#define SHIFTER_MODULES_H

#include "as_user/config.h"
#include "base/error.h"

struct modules {
    const struct config_module **items; /* in the order of activation; they belong to the configuration */
    size_t count;
    char *names; /* "a,b,": what /var/shifterConfig.json says, and one list for equal choices */
};

/* `asked`: what --module or a variable says, a comma separated list that takes the place of defaultModules; NULL or
 * empty: nobody said anything. After an error `out` holds nothing. */
int modules_choose(const struct config *config, const char *asked, struct modules *out, struct error *e);
void modules_release(struct modules *modules);

#endif
