/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The modules of udiRoot.conf while it is parsed (spec: runtime contract, sections 3.4 and 3.5).
 */
#ifndef SHIFTER_CONFIG_MODULES_H
#define SHIFTER_CONFIG_MODULES_H

#include "as_user/config.h"

struct modules_lines { /* where names of modules were written that may be defined further down; 0: nowhere */
    unsigned default_line;
    unsigned *conflict; /* one for each module up to `count` */
    size_t count;
};

int modules_check_name(const char *name, struct error *e);
/* The module of that name; new and enabled when there was none. Good until the next call. */
struct config_module *modules_get(struct config *config, const char *name);
void modules_note_conflict(struct modules_lines *lines, const struct config *config,
                           const struct config_module *module, unsigned number);
/* When all is read: every name of `conflict` and defaultModules exists, the defaults are enabled and get on. `errors`:
 * NULL, or where those of `conflict` are collected. */
int modules_check(const struct config *config, const struct modules_lines *lines, const char *file,
                  struct strings *errors, struct error *e);
void modules_free(struct config *config);

#endif
