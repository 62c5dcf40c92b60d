/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Writes inodes of the merged tree into the image's inode table; ids and xattrs move to the image's tables on the way.
 */
#ifndef SHIFTER_MERGER_INODE_WRITER_H
#define SHIFTER_MERGER_INODE_WRITER_H

#include <sqfs/dir_writer.h>
#include <sqfs/id_table.h>
#include <sqfs/inode.h>
#include <sqfs/meta_writer.h>
#include <sqfs/xattr_writer.h>

#include "archive.h"
#include "extents.h"
#include "output.h"
#include "tree.h"

struct inode_writer {
    struct tree *tree;
    struct archive *archives;
    const struct extents *extents;
    struct output *output;
    sqfs_meta_writer_t *table;
    sqfs_id_table_t *ids;
    sqfs_xattr_writer_t *xattrs;
    sqfs_inode_generic_t *inode; /* the one being made */
    size_t payload_capacity;     /* bytes it has room for behind itself */
};

int inode_writer_init(struct inode_writer *w, struct tree *t, struct archive *archives, const struct extents *extents,
                      struct output *output, sqfs_compressor_t *compressor, struct error *e);
void inode_writer_destroy(struct inode_writer *w);

/* Writes an inode that is no directory and sets its reference. */
int inode_write(struct inode_writer *w, struct inode *inode, struct error *e);

/* Writes the inode of the directory whose listing `listing` has just finished. */
int inode_write_directory(struct inode_writer *w, struct inode *inode, const sqfs_dir_writer_t *listing,
                          uint32_t parent, struct error *e);

/* Type bits and permission bits, as in st_mode. */
uint16_t inode_file_type(const struct inode *inode);

#endif
