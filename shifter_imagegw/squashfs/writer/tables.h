/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The second half of the archive: inodes, directories, fragments, ids, attributes, superblock; and the digests behind
 * it.
 */
#ifndef WRITER_TABLES_H
#define WRITER_TABLES_H

#include <sqfs/id_table.h>

#include "blocks.h"
#include "output.h"
#include "tree.h"
#include "xattrs.h"

/* `super` is initialised. Returns the hash of the whole archive. */
int tables_write(struct tree *tree, struct blocks *blocks, struct xattrs *xattrs, sqfs_id_table_t *ids,
                 struct output *output, sqfs_super_t *super, unsigned char sha256[32], struct failure *failure);

#endif
