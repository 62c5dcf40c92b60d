/* SPDX-License-Identifier: BSD-3-Clause
 *
 * One inode, from an archive's table into a tree and from a tree into the image's table.
 */
#ifndef SHIFTER_MERGER_INODE_H
#define SHIFTER_MERGER_INODE_H

#include "archive.h"
#include "tree.h"

/* Reads and checks the inode at `reference`; a directory's children are not read. */
int inode_read(struct archive *a, struct tree *t, uint64_t reference, uint32_t *index, struct error *e);

/* Bytes of the file's data blocks in its archive. */
uint64_t inode_stored_size(const struct tree *t, const struct file_content *f);

#endif
