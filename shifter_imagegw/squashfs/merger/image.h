/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Writes the image: data copied from the archives, then the tables of the merged tree, the superblock last.
 */
#ifndef SHIFTER_MERGER_IMAGE_H
#define SHIFTER_MERGER_IMAGE_H

#include "archive.h"
#include "tree.h"

struct image_summary {
    uint64_t entries; /* names, the root among them */
    uint64_t inodes;
    uint64_t bytes;  /* length of the file, a multiple of 4096 */
    uint64_t copied; /* bytes of data blocks and fragment blocks */
};

/* Writes to the empty file `fd`. Without archives and with no root in the tree: an empty root directory. */
int image_write(struct tree *t, struct archive *archives, size_t count, int fd, struct image_summary *summary,
                struct error *e);

#endif
