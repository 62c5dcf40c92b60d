/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Names in a container that is being built: resolved once, with its root as "/", into descriptors that the mounts are
 * then made from and on. A user's names are resolved with his rights (spec: runtime contract, 8.5 and 17.2).
 */
#ifndef SHIFTER_CONTAINER_PATH_H
#define SHIFTER_CONTAINER_PATH_H

#include <stdbool.h>
#include <stddef.h>

#include "as_root/privilege.h"
#include "as_user/volumes.h"
#include "base/error.h"

struct container {
    int proc; /* descriptor of the host's procfs */
    int root; /* of the directory that will be "/"; stays open as long as this is used */
    const struct caller *caller;
    bool exact; /* nothing of the site may be where a link of the image leads: a hook follows */
    struct {
        unsigned long *ids; /* of mounts */
        size_t count;
    } own; /* the user's volumes so far */
};

void container_end(struct container *container);

/* Both are called as root. What a user maps: a directory or file that he can reach in the container, but not all
 * of it. */
int container_open_source(const struct container *container, const char *path, struct error *e);
/* Where something is to be mounted: there already, or made in the overlay and nowhere else. Where it really is must be
 * allowed too, and a user's must be in the image, in /tmp, or belong to him. */
int container_open_target(const struct container *container, const char *path, bool directory,
                          enum volume_origin origin, struct error *e);

#endif
