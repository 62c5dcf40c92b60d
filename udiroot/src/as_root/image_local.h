/* SPDX-License-Identifier: BSD-3-Clause
 *
 * local:/path, a directory of the node in place of an image (spec: runtime contract, sections 5.1 and 9.6; W-1). What
 * the user could not open himself he does not get: nothing of it is read or resolved with root's rights.
 */
#ifndef SHIFTER_IMAGE_LOCAL_H
#define SHIFTER_IMAGE_LOCAL_H

#include "as_root/container_path.h"
#include "as_user/config.h"
#include "as_user/image.h"
#include "base/error.h"

/* Called with the user's rights: image_local_describe, and is `path` a directory that he can list? */
int image_local_open(const struct config *config, const char *path, struct image *out, struct error *e);

/* Called as root, in the namespace that the container is made in and before anything is mounted there: the directory
 * as its user can open it. */
int image_local_top(const struct caller *caller, const char *path, struct error *e);

/* Called as root: shows the entries of `top` at the root of the container, save those that are there already. Where
 * both have a directory, and nothing is mounted on the container's, the same is done in it. `stage` as in struct
 * bind. */
int image_local_merge(const struct container *container, int stage, int top, struct error *e);

#endif
