/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Environment algebra (spec: runtime contract, section 11): an environment is a `struct strings` of NAME=value.
 */
#ifndef SHIFTER_ENVIRON_H
#define SHIFTER_ENVIRON_H

#include "base/error.h"
#include "base/text.h"

struct site_environ { /* siteEnv, siteEnvAppend, siteEnvPrepend, siteEnvUnset, of the site or of one module */
    struct strings set, append, prepend, unset;
};

const char *environ_get(const struct strings *env, const char *name);
void environ_set(struct strings *env, const char *name_value);     /* NAME=value, the value may be empty */
void environ_append(struct strings *env, const char *name_value);
void environ_prepend(struct strings *env, const char *name_value);
void environ_unset(struct strings *env, const char *name);
/* `origins`: as below; `prefix` names the module, "" for the site. */
void environ_apply_site(struct strings *env, const struct site_environ *site, const char *prefix,
                        struct strings *origins);
/* For who asks where a value comes from: does to NAME=origin what `change` did to the variable. NULL: nobody asks. */
void environ_note(struct strings *origins, void (*change)(struct strings *, const char *), const char *item,
                  const char *prefix, const char *origin);

/* Is the text NAME=value with a non-empty name free of control characters? */
int environ_check(const char *name_value, struct error *e);
/* Reads an --env-file from an open descriptor (opened with the user's rights): appends NAME=value lines to `out`. */
int environ_read_file(int fd, const char *name, struct strings *out, struct error *e);
/* Sets those of `names` that the process was started with: `fd` is its environ file, proc(5). */
int environ_read_process(int fd, const struct strings *names, struct strings *out, struct error *e);

#endif
