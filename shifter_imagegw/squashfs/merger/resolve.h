/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Where a path leads in the tree. Symlinks in the middle of it are followed as a process whose root is the image would,
 * ".." at the root is the root; nothing but the tree in memory is ever looked at, so nothing can lead out of it.
 * This is what `umoci unpack` and containerd do with the directory part of a name.
 */
#ifndef SHIFTER_MERGER_RESOLVE_H
#define SHIFTER_MERGER_RESOLVE_H

#include "tree.h"

/* The inode a hard link's target names below tree->root: its directory part is followed, its last component is not.
 * *found is TREE_NONE if there is no such thing. */
int resolve_link_target(const struct tree *t, const uint8_t *path, size_t length, uint32_t *found, struct error *e);

/* The directory that `path` leads to. If `create`, what is missing is made (mode 0755, `model`'s owner and archive).
 * *found is TREE_NONE if a component is missing and not made, is no directory, or if symlinks go round in circles. */
int resolve_directory(struct tree *t, const uint8_t *path, size_t length, int create, uint32_t model, uint32_t *found,
                      struct error *e);

#endif
