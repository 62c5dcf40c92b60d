/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Where udiMount and loopMount may be. unsetupRoot takes away every mount at or below them (spec: runtime contract,
 * section 16), and setupRoot shows a container at udiMount: a slip of the pen must not cost the node its own mounts.
 */
#ifndef SHIFTER_CONFIG_PLACES_H
#define SHIFTER_CONFIG_PLACES_H

#include "as_user/config.h"

/* A clean path. -1: it is or holds a directory of the system, or lies in one that the kernel fills. The message names
 * neither file nor key. */
int config_check_place(const char *path, struct error *e);
/* -1: something that shifter itself needs lies in udiMount or loopMount. With `errors` all of that is added there, and
 * the answer is 0. `file`: the name of the configuration. */
int config_check_nesting(const struct config *config, const char *file, struct strings *errors, struct error *e);

#endif
