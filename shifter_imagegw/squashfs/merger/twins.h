/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Equal files of different layers: one of them gives its blocks to all. Found by the digests of contents that layer
 * archives hold behind their file system (shifter_imagegw/layers/trailer.py), so nothing is unpacked or compared here.
 */
#ifndef SHIFTER_MERGER_TWINS_H
#define SHIFTER_MERGER_TWINS_H

#include <stddef.h>

#include "archive.h"
#include "tree.h"

/* Lets every file of the image share the content of an equal one in an older archive. The names must be counted
 * (tree_count_names) and the inodes still have the numbers of their archives. */
int twins_share(struct tree *t, struct archive *archives, size_t count, struct error *e);

#endif
