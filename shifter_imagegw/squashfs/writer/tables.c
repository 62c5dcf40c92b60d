/* SPDX-License-Identifier: BSD-3-Clause */
#include "tables.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <sqfs/dir_writer.h>
#include <sqfs/error.h>
#include <sqfs/inode.h>
#include <sqfs/meta_writer.h>

#include "array.h"
#include "digests.h"

/* Directory indices count metadata blocks of the listing in 16 bits (struct squashfs_ldir_inode). */
static const size_t max_listing = (size_t)256 << 20;

struct tables {
    struct tree *tree;
    struct blocks *blocks;
    struct xattrs *xattrs;
    struct output *output;
    sqfs_meta_writer_t *inodes, *directories;
    sqfs_dir_writer_t *listing;
    sqfs_inode_generic_t *scratch; /* an inode in the making, with room for its block sizes or target */
    size_t scratch_room;
    uint32_t inode_count;
    uint32_t marks[4]; /* attribute sets of directories that have none of their own, by IMPLIED and OPAQUE */
    struct failure *failure;
};

static int failed(struct tables *tables, int code)
{
    return output_fail(tables->output, code, "inodes and directories", tables->failure);
}

/* Writes `inode` and keeps its reference where directories find it. */
static int put_inode(struct tables *tables, struct inode *inode, const sqfs_inode_generic_t *generic)
{
    sqfs_u64 block;
    sqfs_u32 offset;
    sqfs_meta_writer_get_position(tables->inodes, &block, &offset);
    int result = sqfs_meta_writer_write_inode(tables->inodes, generic);
    if (result != 0)
        return failed(tables, result);
    inode->where = block << 16 | offset;
    return 0;
}

static void fill_base(const struct inode *inode, sqfs_u16 type, sqfs_inode_generic_t *generic)
{
    generic->base = (sqfs_inode_t){.type = type, .mode = inode->mode, .uid_idx = inode->owner,
                                   .gid_idx = inode->group, .mod_time = inode->modified,
                                   .inode_number = inode->number};
}

/* An empty inode with room for `extra` bytes behind it. */
static sqfs_inode_generic_t *take_scratch(struct tables *tables, size_t extra)
{
    size_t needed = sizeof *tables->scratch + extra;
    if (needed > tables->scratch_room) {
        void *grown = array_grow(tables->scratch, &tables->scratch_room, needed, 1);
        if (grown == NULL) {
            (void)fail_memory(tables->failure);
            return NULL;
        }
        tables->scratch = grown;
    }
    memset(tables->scratch, 0, sizeof *tables->scratch);
    return tables->scratch;
}

/* A tail that is in no fragment block is a short block of its own. */
static size_t count_blocks(const struct inode *inode, uint32_t block_size)
{
    bool short_block = inode->file.fragment == UINT32_MAX && inode->size % block_size != 0;
    return (size_t)(inode->size / block_size) + short_block;
}

static int write_file(struct tables *tables, struct inode *inode)
{
    uint32_t block_size = tables->blocks->block_size;
    size_t blocks = count_blocks(inode, block_size);
    size_t bytes = blocks * sizeof(sqfs_u32);
    sqfs_inode_generic_t *generic = take_scratch(tables, bytes);
    if (generic == NULL)
        return -1;
    uint64_t holes = 0;
    for (size_t i = 0; i < blocks; i++) {
        uint64_t left = inode->size - (uint64_t)i * block_size;
        uint32_t stored = tables->blocks->sizes[inode->file.blocks + i];
        generic->extra[i] = stored;
        if (stored == 0)
            holes += left < block_size ? left : block_size;
    }
    generic->payload_bytes_available = generic->payload_bytes_used = (sqfs_u32)bytes;
    if (inode->size > UINT32_MAX || inode->where > UINT32_MAX || holes > 0 || inode->links > 1 ||
        inode->xattrs != TREE_NONE) {
        fill_base(inode, SQFS_INODE_EXT_FILE, generic);
        generic->data.file_ext = (sqfs_inode_file_ext_t){.blocks_start = inode->where, .file_size = inode->size,
                                                         .sparse = holes, .nlink = inode->links,
                                                         .fragment_idx = inode->file.fragment,
                                                         .fragment_offset = inode->file.offset,
                                                         .xattr_idx = inode->xattrs};
    } else {
        fill_base(inode, SQFS_INODE_FILE, generic);
        generic->data.file = (sqfs_inode_file_t){.blocks_start = (sqfs_u32)inode->where,
                                                 .fragment_index = inode->file.fragment,
                                                 .fragment_offset = inode->file.offset,
                                                 .file_size = (sqfs_u32)inode->size};
    }
    return put_inode(tables, inode, generic);
}

static int write_symlink(struct tables *tables, struct inode *inode)
{
    sqfs_inode_generic_t *generic = take_scratch(tables, inode->symlink.length);
    if (generic == NULL)
        return -1;
    fill_base(inode, SQFS_INODE_SLINK, generic);
    generic->data.slink = (sqfs_inode_slink_t){.nlink = inode->links, .target_size = inode->symlink.length};
    memcpy(generic->extra, tables->tree->texts + inode->symlink.target, inode->symlink.length);
    generic->payload_bytes_available = generic->payload_bytes_used = inode->symlink.length;
    return put_inode(tables, inode, generic);
}

/* Whiteouts (character device 0:0, as overlayfs has them) and FIFOs. */
static int write_special(struct tables *tables, struct inode *inode)
{
    sqfs_inode_generic_t *generic = take_scratch(tables, 0);
    if (generic == NULL)
        return -1;
    if (S_ISFIFO(inode->mode)) {
        fill_base(inode, SQFS_INODE_FIFO, generic);
        generic->data.ipc = (sqfs_inode_ipc_t){.nlink = inode->links};
    } else {
        fill_base(inode, SQFS_INODE_CDEV, generic);
        generic->data.dev = (sqfs_inode_dev_t){.nlink = inode->links, .devno = 0};
    }
    return put_inode(tables, inode, generic);
}

/* The attribute set of a directory: its own, and what the merge must know. */
static int mark_directory(struct tables *tables, struct inode *inode)
{
    unsigned marks = inode->flags & (INODE_IMPLIED | INODE_OPAQUE);
    if (marks == 0)
        return 0;
    if (inode->xattrs == TREE_NONE && tables->marks[marks] != TREE_NONE) {
        inode->xattrs = tables->marks[marks];
        return 0;
    }
    struct xattrs *xattrs = tables->xattrs;
    bool plain = inode->xattrs == TREE_NONE;
    xattrs_begin(xattrs);
    if (xattrs_copy(xattrs, inode->xattrs, tables->failure) < 0)
        return -1;
    if ((marks & INODE_IMPLIED) != 0 &&
        xattrs_add(xattrs, SQFS_XATTR_USER, "shifter.implied", "1", 1, tables->failure) < 0)
        return -1;
    if ((marks & INODE_OPAQUE) != 0 &&
        xattrs_add(xattrs, SQFS_XATTR_TRUSTED, "overlay.opaque", "y", 1, tables->failure) < 0)
        return -1;
    if (xattrs_end(xattrs, &inode->xattrs, tables->failure) < 0)
        return -1;
    if (plain)
        tables->marks[marks] = inode->xattrs;
    return 0;
}

static int write_listing(struct tables *tables, uint32_t directory)
{
    struct tree *tree = tables->tree;
    int result = sqfs_dir_writer_begin(tables->listing, 0);
    for (uint32_t node = tree->inodes[directory].directory.first; result == 0 && node != TREE_NONE;
         node = tree->nodes[node].next) {
        size_t size;
        const struct inode *inode = tree_inode(tree, node);
        result = sqfs_dir_writer_add_entry(tables->listing, tree_name(tree, node, &size), inode->number, inode->where,
                                           inode->mode);
    }
    if (result == 0)
        result = sqfs_dir_writer_end(tables->listing);
    if (result != 0)
        return failed(tables, result);
    if (sqfs_dir_writer_get_size(tables->listing) > max_listing)
        return fail_limit(tables->failure, "a directory has more entries than squashfs can hold");
    return 0;
}

static int write_directory_inode(struct tables *tables, uint32_t directory, uint32_t parent_number)
{
    struct inode *inode = &tables->tree->inodes[directory];
    if (mark_directory(tables, inode) < 0)
        return -1;
    sqfs_inode_generic_t *generic = sqfs_dir_writer_create_inode(tables->listing, 0, inode->xattrs, parent_number);
    if (generic == NULL)
        return fail_memory(tables->failure);
    fill_base(inode, generic->base.type, generic);
    if (generic->base.type == SQFS_INODE_DIR)
        generic->data.dir.nlink = inode->links + 2;
    else
        generic->data.dir_ext.nlink = inode->links + 2;
    int result = put_inode(tables, inode, generic);
    sqfs_free(generic);
    return result;
}

static int write_inode(struct tables *tables, struct inode *inode)
{
    switch (inode->mode & S_IFMT) {
    case S_IFREG: return write_file(tables, inode);
    case S_IFLNK: return write_symlink(tables, inode);
    default: return write_special(tables, inode);
    }
}

/* Children first: a listing holds where their inodes are. As deep as directories are nested: limits.max_depth. */
static int write_directory(struct tables *tables, uint32_t directory, uint32_t parent_number)
{
    struct tree *tree = tables->tree;
    uint32_t number = tree->inodes[directory].number;
    for (uint32_t node = tree->inodes[directory].directory.first; node != TREE_NONE; node = tree->nodes[node].next) {
        struct inode *inode = tree_inode(tree, node);
        if (S_ISDIR(inode->mode)) {
            if (write_directory(tables, tree->nodes[node].inode, number) < 0)
                return -1;
        } else if ((inode->flags & INODE_WRITTEN) == 0) {
            if (write_inode(tables, inode) < 0)
                return -1;
            inode->flags |= INODE_WRITTEN;
        }
    }
    if (write_listing(tables, directory) < 0)
        return -1;
    return write_directory_inode(tables, directory, parent_number);
}

static int write_inodes(struct tables *tables, sqfs_super_t *super)
{
    sqfs_file_t *file = output_file(tables->output);
    tables->inodes = sqfs_meta_writer_create(file, tables->blocks->compressor, 0);
    tables->directories =
        sqfs_meta_writer_create(file, tables->blocks->compressor, SQFS_META_WRITER_KEEP_IN_MEMORY);
    if (tables->inodes == NULL || tables->directories == NULL)
        return fail_memory(tables->failure);
    tables->listing = sqfs_dir_writer_create(tables->directories, 0);
    if (tables->listing == NULL)
        return fail_memory(tables->failure);
    super->inode_table_start = file->get_size(file);
    /* The root's parent is a number that no inode has, as mksquashfs does it. */
    if (write_directory(tables, 0, tables->inode_count + 1) < 0)
        return -1;
    int result = sqfs_meta_writer_flush(tables->inodes);
    if (result == 0)
        result = sqfs_meta_writer_flush(tables->directories);
    super->directory_table_start = file->get_size(file);
    if (result == 0)
        result = sqfs_meta_write_write_to_file(tables->directories);
    super->root_inode_ref = tables->tree->inodes[0].where;
    super->inode_count = tables->inode_count;
    return result == 0 ? 0 : failed(tables, result);
}

static int write_rest(struct tables *tables, sqfs_id_table_t *ids, sqfs_super_t *super, unsigned char sha256[32])
{
    sqfs_file_t *file = output_file(tables->output);
    sqfs_compressor_t *compressor = tables->blocks->compressor;
    int result = sqfs_frag_table_write(tables->blocks->fragments, file, super, compressor);
    if (result == 0)
        result = sqfs_id_table_write(ids, file, super, compressor);
    if (result != 0)
        return failed(tables, result);
    if (xattrs_write(tables->xattrs, tables->output, super, compressor, tables->failure) < 0)
        return -1;
    super->bytes_used = file->get_size(file);
    if (digests_write(tables->tree, &tables->blocks->twins, tables->output, tables->failure) < 0)
        return -1;
    return output_finish(tables->output, super, sha256, tables->failure);
}

int tables_write(struct tree *tree, struct blocks *blocks, struct xattrs *xattrs, sqfs_id_table_t *ids,
                 struct output *output, sqfs_super_t *super, unsigned char sha256[32], struct failure *failure)
{
    struct tables tables = {.tree = tree,
                            .blocks = blocks,
                            .xattrs = xattrs,
                            .output = output,
                            .marks = {TREE_NONE, TREE_NONE, TREE_NONE, TREE_NONE},
                            .failure = failure};
    int result = tree_number(tree, &tables.inode_count, failure);
    if (result == 0)
        result = write_inodes(&tables, super);
    if (result == 0)
        result = write_rest(&tables, ids, super, sha256);
    sqfs_destroy(tables.listing);
    sqfs_destroy(tables.inodes);
    sqfs_destroy(tables.directories);
    free(tables.scratch);
    return result;
}
