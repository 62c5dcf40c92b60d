/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Reads all inodes and directories of an archive into a tree.
 */
#ifndef SHIFTER_MERGER_READER_H
#define SHIFTER_MERGER_READER_H

#include "archive.h"
#include "tree.h"

/* How the entries of an archive are to be understood. */
enum reading {
    READ_IMAGE, /* as they are: device 0:0 is a device, the private xattrs say nothing */
    READ_LAYER, /* as a layer archive: whiteouts, opaque and implied directories, links to what `tree->root` holds */
};

/* Sets *root to the archive's root directory; tree->root is only looked at. */
int reader_read(struct archive *a, struct tree *t, enum reading reading, uint32_t *root, struct error *e);

#endif
