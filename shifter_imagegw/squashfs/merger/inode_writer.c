/* SPDX-License-Identifier: BSD-3-Clause */
#include "inode_writer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "inode.h"

enum { ID_STEPS = 256 /* libsquashfs looks for an id from the first to the last */ };

static int failed(struct inode_writer *w, int code, const char *what, struct error *e)
{
    return error_library(e, code, w->output->errnum, what);
}

int inode_writer_init(struct inode_writer *w, struct tree *t, struct archive *archives, const struct extents *extents,
                      struct output *output, sqfs_compressor_t *compressor, struct error *e)
{
    *w = (struct inode_writer){.tree = t, .archives = archives, .extents = extents, .output = output};
    w->table = sqfs_meta_writer_create(&output->file, compressor, 0);
    w->ids = sqfs_id_table_create(0);
    w->xattrs = sqfs_xattr_writer_create(0);
    w->payload_capacity = TREE_TARGET_MAX + 1;
    w->inode = malloc(sizeof *w->inode + w->payload_capacity);
    if (w->table == NULL || w->ids == NULL || w->xattrs == NULL || w->inode == NULL)
        return error_memory(e);
    return 0;
}

void inode_writer_destroy(struct inode_writer *w)
{
    sqfs_destroy(w->table);
    sqfs_destroy(w->ids);
    sqfs_destroy(w->xattrs);
    free(w->inode);
}

uint16_t inode_file_type(const struct inode *inode)
{
    static const uint16_t types[] = {
        [INODE_DIRECTORY] = S_IFDIR,        [INODE_FILE] = S_IFREG, [INODE_SYMLINK] = S_IFLNK,
        [INODE_BLOCK_DEVICE] = S_IFBLK,     [INODE_FIFO] = S_IFIFO, [INODE_SOCKET] = S_IFSOCK,
        [INODE_CHARACTER_DEVICE] = S_IFCHR,
    };
    return (uint16_t)(types[inode->type] | inode->mode);
}

/* --- ids and xattrs ----------------------------------------------------------------------------------------------- */

static int translate_id(struct inode_writer *w, const struct inode *inode, uint16_t index, uint16_t *out,
                        struct error *e)
{
    struct archive *a = inode->archive != TREE_NONE ? &w->archives[inode->archive] : NULL;
    if (a != NULL && a->id_indices[index] != TREE_NONE) {
        *out = (uint16_t)a->id_indices[index];
        return 0;
    }
    if (control_step(w->tree->control, ID_STEPS, e) < 0)
        return -1;
    int code = sqfs_id_table_id_to_index(w->ids, a != NULL ? a->ids[index] : 0, out);
    if (code != 0)
        return failed(w, code, "more than 65536 different owners", e);
    if (a != NULL)
        a->id_indices[index] = *out;
    return 0;
}

static int add_xattr(void *context, const struct xattr *x, struct error *e)
{
    struct inode_writer *w = context;
    if (xattr_is_private(x->name))
        return 0;
    int code = sqfs_xattr_writer_add(w->xattrs, x->name, x->value, x->size);
    return code == 0 ? 0 : failed(w, code, "xattrs", e);
}

/* *out is the image's id of the inode's set of xattrs, TREE_NONE if it has none. */
static int translate_xattrs(struct inode_writer *w, const struct inode *inode, uint32_t *out, struct error *e)
{
    *out = TREE_NONE;
    if (inode->xattrs == TREE_NONE)
        return 0;
    struct archive *a = &w->archives[inode->archive];
    uint8_t marks;
    e->archive = (int)inode->archive;
    if (archive_xattr_marks(a, inode->xattrs, &marks, e) < 0)
        return -1;
    struct xattr_set *set = &a->xattr_sets[inode->xattrs];
    if ((marks & XATTR_PUBLIC) != 0 && set->written == TREE_NONE) {
        int code = sqfs_xattr_writer_begin(w->xattrs, 0);
        if (code == 0 && archive_visit_xattrs(a, inode->xattrs, add_xattr, w, e) < 0)
            return -1;
        if (code == 0)
            code = sqfs_xattr_writer_end(w->xattrs, &set->written);
        if (code != 0)
            return failed(w, code, "xattrs", e);
    }
    e->archive = ERROR_NO_ARCHIVE;
    *out = set->written;
    return 0;
}

/* --- one inode ---------------------------------------------------------------------------------------------------- */

static int fill_base(struct inode_writer *w, const struct inode *inode, sqfs_inode_t *base, struct error *e)
{
    base->mode = inode_file_type(inode);
    base->mod_time = inode->mtime;
    base->inode_number = inode->number;
    if (translate_id(w, inode, inode->uid_index, &base->uid_idx, e) < 0)
        return -1;
    return translate_id(w, inode, inode->gid_index, &base->gid_idx, e);
}

static int reserve_payload(struct inode_writer *w, size_t size, struct error *e)
{
    if (size <= w->payload_capacity)
        return 0;
    sqfs_inode_generic_t *grown = realloc(w->inode, sizeof *grown + size);
    if (grown == NULL)
        return error_memory(e);
    w->inode = grown;
    w->payload_capacity = size;
    return 0;
}

/* Bytes of the file that lie in holes: the kernel takes them off st_blocks. */
static uint64_t holes(const struct inode_writer *w, const struct file_content *f, uint32_t block_size)
{
    uint64_t empty = 0;
    for (uint32_t i = 0; i < f->block_count; i++) {
        uint64_t left = f->size - (uint64_t)i * block_size;
        if (SQFS_IS_SPARSE_BLOCK(w->tree->blocks[f->blocks + i]))
            empty += left < block_size ? left : block_size;
    }
    return empty;
}

static int fill_file(struct inode_writer *w, const struct inode *inode, uint32_t xattrs, struct error *e)
{
    const struct file_content *f = &inode->content.file;
    struct archive *a = &w->archives[inode->data_archive];
    size_t payload = f->block_count * sizeof(uint32_t);
    if (reserve_payload(w, payload, e) < 0)
        return -1;
    sqfs_inode_generic_t *made = w->inode;
    made->payload_bytes_used = (uint32_t)payload;
    if (payload > 0)
        memcpy(made->extra, w->tree->blocks + f->blocks, payload);
    uint64_t start = inode_stored_size(w->tree, f) > 0 ? extents_target(w->extents, a->index, f->start) : 0;
    uint64_t empty = holes(w, f, a->super.block_size);
    uint32_t fragment = f->fragment == TREE_NONE ? TREE_NONE : a->fragment_indices[f->fragment];
    uint32_t fragment_offset = f->fragment == TREE_NONE ? 0 : f->fragment_offset;
    if (inode->nlink == 1 && xattrs == TREE_NONE && empty == 0 && f->size <= UINT32_MAX && start <= UINT32_MAX) {
        made->base.type = SQFS_INODE_FILE;
        made->data.file = (sqfs_inode_file_t){.blocks_start = (uint32_t)start,
                                              .fragment_index = fragment,
                                              .fragment_offset = fragment_offset,
                                              .file_size = (uint32_t)f->size};
    } else {
        made->base.type = SQFS_INODE_EXT_FILE;
        made->data.file_ext = (sqfs_inode_file_ext_t){.blocks_start = start,
                                                      .file_size = f->size,
                                                      .sparse = empty,
                                                      .nlink = inode->nlink,
                                                      .fragment_idx = fragment,
                                                      .fragment_offset = fragment_offset,
                                                      .xattr_idx = xattrs};
    }
    return 0;
}

/* `made` has room for every target and is a basic inode; libsquashfs turns it into an extended one for xattrs. */
static void fill_symlink(const struct inode_writer *w, const struct inode *inode, sqfs_inode_generic_t *made)
{
    const struct symlink_content *s = &inode->content.symlink;
    made->base.type = SQFS_INODE_SLINK;
    made->data.slink = (sqfs_inode_slink_t){.nlink = inode->nlink, .target_size = s->length};
    made->payload_bytes_used = s->length;
    memcpy(made->extra, w->tree->names + s->target, s->length);
    ((uint8_t *)made->extra)[s->length] = '\0';
}

static void fill_special(const struct inode *inode, sqfs_inode_generic_t *made)
{
    made->base.type = inode->type; /* the basic types have our numbers */
    if (inode->type == INODE_BLOCK_DEVICE || inode->type == INODE_CHARACTER_DEVICE)
        made->data.dev = (sqfs_inode_dev_t){.nlink = inode->nlink, .devno = inode->content.device};
    else
        made->data.ipc = (sqfs_inode_ipc_t){.nlink = inode->nlink};
}

/* Appends a finished inode to the table. */
static int append(struct inode_writer *w, const sqfs_inode_generic_t *made, struct inode *inode, struct error *e)
{
    uint64_t block;
    uint32_t offset;
    sqfs_meta_writer_get_position(w->table, &block, &offset);
    int code = sqfs_meta_writer_write_inode(w->table, made);
    if (code != 0)
        return failed(w, code, "inode table", e);
    if (inode->type == INODE_DIRECTORY)
        free(inode->content.directory.children);
    inode->flags |= INODE_WRITTEN;
    inode->content.reference = block << 16 | offset;
    return 0;
}

int inode_write(struct inode_writer *w, struct inode *inode, struct error *e)
{
    uint32_t xattrs;
    if (translate_xattrs(w, inode, &xattrs, e) < 0)
        return -1;
    memset(w->inode, 0, sizeof *w->inode);
    if (inode->type == INODE_FILE) {
        if (fill_file(w, inode, xattrs, e) < 0)
            return -1;
    } else {
        if (inode->type == INODE_SYMLINK)
            fill_symlink(w, inode, w->inode);
        else
            fill_special(inode, w->inode);
        if (xattrs != TREE_NONE)
            (void)sqfs_inode_set_xattr_index(w->inode, xattrs);
    }
    w->inode->payload_bytes_available = (uint32_t)w->payload_capacity;
    if (fill_base(w, inode, &w->inode->base, e) < 0)
        return -1;
    return append(w, w->inode, inode, e);
}

int inode_write_directory(struct inode_writer *w, struct inode *inode, const sqfs_dir_writer_t *listing,
                          uint32_t parent, struct error *e)
{
    uint32_t xattrs;
    if (translate_xattrs(w, inode, &xattrs, e) < 0)
        return -1;
    sqfs_inode_generic_t *made = sqfs_dir_writer_create_inode(listing, 0, xattrs, parent);
    if (made == NULL)
        return error_memory(e);
    /* libsquashfs counts all children; find(1) and every other file system count subdirectories. */
    if (made->base.type == SQFS_INODE_DIR)
        made->data.dir.nlink = inode->nlink;
    else
        made->data.dir_ext.nlink = inode->nlink;
    int result = fill_base(w, inode, &made->base, e);
    if (result == 0)
        result = append(w, made, inode, e);
    sqfs_free(made);
    return result;
}
