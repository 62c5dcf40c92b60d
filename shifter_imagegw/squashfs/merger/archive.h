/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A squashfs 4.0 file opened for reading: superblock, compressor, id, fragment and xattr tables, metadata blocks.
 * The format is that of the kernel's fs/squashfs/squashfs_fs.h; structures and constants are libsquashfs' (sqfs/super.h
 * and the headers next to it), and so is the decompression. libsquashfs' own readers are not used: they allocate what a
 * damaged size field says. Here every position, size and count is checked against the file before it is believed.
 */
#ifndef SHIFTER_MERGER_ARCHIVE_H
#define SHIFTER_MERGER_ARCHIVE_H

#include <stddef.h>
#include <stdint.h>

#include <sqfs/block.h>
#include <sqfs/compressor.h>
#include <sqfs/super.h>
#include <sqfs/xattr.h>

#include "error.h"

enum { ARCHIVE_METADATA_SETS = 32, ARCHIVE_OPTIONS_MAX = 64, ARCHIVE_DIGEST_SIZE = 16 /* bytes */ };
enum { ARCHIVE_XATTR_NAME_MAX = 255, ARCHIVE_XATTR_VALUE_MAX = 65536 }; /* linux/limits.h */

/* What the xattrs of an inode say to the merge (the layer archive contract, docs/conversion.md). */
enum xattr_marks {
    XATTR_READ = 1, /* the set was looked at: the other bits are true */
    XATTR_OPAQUE = 2,
    XATTR_IMPLIED = 4,
    XATTR_LINK = 8,
    XATTR_PUBLIC = 16, /* has xattrs that belong into the image */
};

struct xattr_set {
    sqfs_xattr_id_t where; /* host byte order */
    uint32_t written;      /* its id in the image, or TREE_NONE */
    uint8_t marks;
};

struct metadata_block {
    uint64_t position; /* of its header in the file; 0: empty slot */
    uint32_t archive;
    uint32_t stored; /* bytes in the file, header included */
    uint32_t size;
    uint8_t data[SQFS_META_BLOCK_SIZE];
};

/* Listings and the inodes that they name are read by turns: two blocks that share a set must not evict each other. */
struct metadata_set {
    struct metadata_block blocks[2];
    unsigned oldest; /* which of them was not the last to be used */
};

/* Unpacked metadata blocks, shared by all archives of a merge. */
struct metadata_cache {
    struct metadata_set sets[ARCHIVE_METADATA_SETS];
    uint8_t value[ARCHIVE_XATTR_VALUE_MAX]; /* the xattr value being looked at */
};

struct archive {
    int fd;         /* borrowed */
    uint32_t index; /* among the archives of the merge */
    sqfs_super_t super;
    sqfs_compressor_t *decompressor;
    uint8_t options[ARCHIVE_OPTIONS_MAX]; /* the compressor's options, as stored */
    size_t options_size;                  /* 0: defaults */
    uint64_t data_start;                  /* of blocks and fragment blocks; they end where the inode table starts */
    uint64_t directory_table_end;
    uint64_t digests_start; /* of the digests of contents: inode 1's, then 2's; all zeros if it is not known. 0: has none */
    uint32_t *ids;        /* id_count of them */
    uint32_t *id_indices; /* their index in the image, or TREE_NONE */
    sqfs_fragment_t *fragments;
    uint32_t *fragment_indices; /* their index in the image; TREE_NONE: not used; 0 while only used is known */
    uint64_t xattr_start, xattr_end;
    struct xattr_set *xattr_sets;
    uint32_t xattr_count;
    uint32_t xattr_effort_left; /* pairs, and each 256 bytes of their values; bounds the time a hostile archive takes */
    struct metadata_cache *cache;
    struct control *control;
};

/* A position in a metadata table, which ends at `end`. */
struct metadata_cursor {
    uint64_t position; /* of the block's header in the file */
    uint64_t end;
    uint32_t offset; /* bytes into the unpacked block */
};

int archive_open(struct archive *a, int fd, uint32_t index, struct metadata_cache *cache, struct control *control,
                 struct error *e);
void archive_close(struct archive *a);

/* Reads exactly `size` bytes of the file. */
int archive_read_at(const struct archive *a, uint64_t position, void *out, size_t size, struct error *e);

/* A cursor at reference `reference` (block << 16 | offset) of the table [start, end). */
int metadata_seek(struct metadata_cursor *c, uint64_t start, uint64_t end, uint64_t reference, struct error *e);

/* Reads `size` bytes at the cursor and moves it; out may be NULL to skip. */
int metadata_read(struct archive *a, struct metadata_cursor *c, void *out, size_t size, struct error *e);

/* Fills in xattrs.c's tables. */
int archive_load_xattrs(struct archive *a, struct error *e);

/* Reads a table of `count` items of `item` bytes whose list of blocks is at `start`; *out is to be freed. */
int archive_load_table(struct archive *a, uint64_t start, size_t count, size_t item, void **out, struct error *e);

/* Checks the export table, which nothing here needs but a kernel reads when it is there. */
int archive_check_export(struct archive *a, struct error *e);

/* Whether [start, start + size) lies in the archive's data area. */
int archive_holds_data(const struct archive *a, uint64_t start, uint64_t size);

struct xattr {
    const char *name; /* with prefix, NUL-terminated */
    const uint8_t *value;
    size_t size;
};

/* Calls `visit` for every xattr of set `index`; visit returns 0 to go on, -1 with *e filled in. */
int archive_visit_xattrs(struct archive *a, uint32_t index, int (*visit)(void *, const struct xattr *, struct error *),
                         void *context, struct error *e);

/* The marks of set `index`, looked at once. */
int archive_xattr_marks(struct archive *a, uint32_t index, uint8_t *marks, struct error *e);

/* Whether an xattr is one of ours or overlayfs' and so never part of an image. */
int xattr_is_private(const char *name);

#define XATTR_NAME_LINK "user.shifter.hardlink"

#endif
