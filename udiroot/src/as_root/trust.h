/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Who could have written what root relies on: every component from / belongs to root or one other account, and nobody
 * else can write it. A sticky bit does not make up for it (security requirements sec-01, sec-03, sec-10; W-10).
 */
#ifndef SHIFTER_TRUST_H
#define SHIFTER_TRUST_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/error.h"

/* The state of an open file or directory. `path` and `owner_name` are for the message; `owner` 0: only root. */
int trust_check(const struct stat *st, uid_t owner, const char *owner_name, const char *path, struct error *e);

/* Opens an absolute path O_PATH and checks every component. A symbolic link is an error or, with `follow`, as good as
 * the directory it lies in. `what` is its key in the configuration, or "". Returns the descriptor. */
int trust_open(const char *path, uid_t owner, const char *owner_name, bool follow, const char *what, struct error *e);
/* The same of a directory, without following links. */
int trust_open_directory(const char *path, uid_t owner, const char *owner_name, const char *what, struct error *e);

#endif
