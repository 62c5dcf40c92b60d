/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Sets of extended attributes in their on-disk form. libsquashfs has a writer for them too, but it compares each new
 * set with all others one by one.
 */
#ifndef WRITER_XATTRS_H
#define WRITER_XATTRS_H

#include <stddef.h>
#include <stdint.h>

#include <sqfs/xattr.h>

#include "failure.h"
#include "output.h"
#include "recipe.h"
#include "siphash.h"

struct xattr_set {
    uint32_t offset, size, count; /* bytes and pairs in `bytes` */
};

struct xattrs {
    const struct limits *limits;
    struct siphash_key key;
    uint8_t *bytes;
    size_t size, capacity;
    struct xattr_set *sets, building;
    size_t count, set_capacity;
    uint32_t *table; /* open addressing, set + 1 */
    size_t table_size;
};

void xattrs_init(struct xattrs *xattrs, const struct limits *limits, struct siphash_key key);
void xattrs_destroy(struct xattrs *xattrs);

/* One set: begin, optionally start from a finished one, add pairs, end. The index is TREE_NONE for an empty set. */
void xattrs_begin(struct xattrs *xattrs);
int xattrs_copy(struct xattrs *xattrs, uint32_t set, struct failure *failure);
int xattrs_add(struct xattrs *xattrs, SQFS_XATTR_TYPE prefix, const char *name, const void *value, size_t size,
               struct failure *failure);
int xattrs_end(struct xattrs *xattrs, uint32_t *set, struct failure *failure);

/* Writes the tables: the last thing in the archive. */
int xattrs_write(struct xattrs *xattrs, struct output *output, sqfs_super_t *super, sqfs_compressor_t *compressor,
                 struct failure *failure);

#endif
