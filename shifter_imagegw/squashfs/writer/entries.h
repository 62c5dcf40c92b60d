/* SPDX-License-Identifier: BSD-3-Clause
 *
 * One tar entry to one change of the layer's tree: what replaces what, whiteouts, hard links, and the recipe's policy.
 * docs/conversion.md says the same in prose.
 */
#ifndef WRITER_ENTRIES_H
#define WRITER_ENTRIES_H

#include <archive.h>
#include <archive_entry.h>
#include <sqfs/id_table.h>

#include "blocks.h"
#include "recipe.h"
#include "tree.h"
#include "walk.h"
#include "xattrs.h"

struct entries {
    const struct recipe *recipe;
    const struct limits *limits;
    struct tree *tree;
    struct blocks *blocks;
    struct xattrs *xattrs;
    sqfs_id_table_t *ids;
    uint64_t count; /* entries so far */
    uint64_t bytes; /* of all files so far, holes included */
    struct walk walk;
};

/* Applies the entry; reads its data from `archive`. When the stream itself fails, `failure` is filled already. */
int entries_apply(struct entries *entries, struct archive *archive, struct archive_entry *entry,
                  struct failure *failure);

#endif
