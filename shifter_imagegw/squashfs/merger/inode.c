/* SPDX-License-Identifier: BSD-3-Clause */
#include "inode.h"

#include <endian.h>
#include <string.h>

#include <sqfs/inode.h>

/* An inode being read: fields one after the other, little endian. */
struct fields {
    struct archive *archive;
    struct metadata_cursor cursor;
    int failed;
    struct error *error;
};

static void field(struct fields *f, void *out, size_t size)
{
    memset(out, 0, size);
    if (!f->failed)
        f->failed = metadata_read(f->archive, &f->cursor, out, size, f->error) < 0;
}

static uint16_t field16(struct fields *f)
{
    uint16_t value;
    field(f, &value, sizeof value);
    return le16toh(value);
}

static uint32_t field32(struct fields *f)
{
    uint32_t value;
    field(f, &value, sizeof value);
    return le32toh(value);
}

static uint64_t field64(struct fields *f)
{
    uint64_t value;
    field(f, &value, sizeof value);
    return le64toh(value);
}

/* The on-disk sizes of the data blocks; what they add up to must lie in the data area. */
static int read_blocks(struct fields *f, struct tree *t, struct file_content *file, struct error *e)
{
    const sqfs_super_t *s = &f->archive->super;
    uint64_t count = file->size / s->block_size;
    if (file->fragment == TREE_NONE && file->size % s->block_size != 0)
        count++;
    file->blocks = (uint32_t)t->block_count;
    if (count > TREE_MAX_BLOCKS - t->block_count)
        return error_damaged(e, "a file of %llu bytes has too many blocks", (unsigned long long)file->size);
    file->block_count = (uint32_t)count;
    uint64_t stored = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t *blocks = tree_reserve(t->blocks, &t->block_capacity, t->block_count + 1, sizeof *blocks, e);
        if (blocks == NULL)
            return -1;
        t->blocks = blocks;
        uint32_t size = field32(f);
        if (f->failed)
            return -1;
        if (size >> 25 != 0 || SQFS_ON_DISK_BLOCK_SIZE(size) > s->block_size)
            return error_damaged(e, "a data block has a stored size of %u", SQFS_ON_DISK_BLOCK_SIZE(size));
        blocks[t->block_count++] = size;
        stored += SQFS_ON_DISK_BLOCK_SIZE(size);
    }
    if (stored > 0 && !archive_holds_data(f->archive, file->start, stored))
        return error_damaged(e, "data blocks at %llu lie outside the data", (unsigned long long)file->start);
    return 0;
}

static int read_file(struct fields *f, struct tree *t, struct inode *inode, int extended, struct error *e)
{
    const sqfs_super_t *s = &f->archive->super;
    struct file_content *file = &inode->content.file;
    if (extended) {
        file->start = field64(f);
        file->size = field64(f);
        (void)field64(f); /* bytes saved by holes: counted anew */
        (void)field32(f); /* names: counted anew */
    } else {
        file->start = field32(f);
    }
    file->fragment = field32(f);
    file->fragment_offset = field32(f);
    if (extended)
        inode->xattrs = field32(f);
    else
        file->size = field32(f);
    if (f->failed)
        return -1;
    if (file->size > INT64_MAX)
        return error_damaged(e, "a file has %llu bytes", (unsigned long long)file->size);
    uint32_t tail = (uint32_t)(file->size % s->block_size);
    if (file->fragment != TREE_NONE && tail == 0)
        file->fragment = TREE_NONE; /* nothing is read from it */
    if (file->fragment != TREE_NONE &&
        (file->fragment >= s->fragment_entry_count || file->fragment_offset > s->block_size - tail))
        return error_damaged(e, "the end of a file lies outside its fragment block");
    return read_blocks(f, t, file, e);
}

/* The index of a long listing, by which a kernel finds names; nothing of it is kept. */
static int check_index(struct fields *f, uint16_t count, struct error *e)
{
    const struct archive *a = f->archive;
    for (unsigned i = 0; i < count && !f->failed; i++) {
        (void)field32(f); /* offset in the listing */
        uint32_t block = field32(f);
        uint32_t length = field32(f); /* of the name, less one */
        uint8_t name[TREE_NAME_MAX];
        if (f->failed)
            break;
        if (length >= sizeof name || block >= a->directory_table_end - a->super.directory_table_start)
            return error_damaged(e, "the index of a directory points outside its table");
        field(f, name, (size_t)length + 1);
    }
    return f->failed ? -1 : 0;
}

static int read_directory(struct fields *f, struct inode *inode, int extended, struct error *e)
{
    struct directory_content *d = &inode->content.directory;
    uint16_t indexed = 0;
    if (extended) {
        (void)field32(f); /* names */
        d->listing_size = field32(f);
        d->listing_block = field32(f);
        (void)field32(f); /* parent */
        indexed = field16(f);
        d->listing_offset = field16(f);
        inode->xattrs = field32(f);
    } else {
        d->listing_block = field32(f);
        (void)field32(f);
        d->listing_size = field16(f);
        d->listing_offset = field16(f);
        (void)field32(f);
    }
    if (!f->failed && d->listing_offset >= SQFS_META_BLOCK_SIZE)
        return error_damaged(e, "a directory listing starts outside its block");
    return check_index(f, indexed, e);
}

static int read_symlink(struct fields *f, struct tree *t, struct inode *inode, int extended, struct error *e)
{
    (void)field32(f);
    uint32_t length = field32(f);
    if (f->failed)
        return -1;
    /* The kernel takes no more than a page. */
    uint8_t target[TREE_TARGET_MAX];
    if (length == 0 || length > sizeof target)
        return error_damaged(e, "a symlink target has %u bytes", length);
    field(f, target, length);
    if (extended)
        inode->xattrs = field32(f);
    if (f->failed)
        return -1;
    if (memchr(target, '\0', length) != NULL)
        return error_damaged(e, "a symlink target holds a NUL byte");
    inode->content.symlink.length = length;
    return tree_add_target(t, target, length, &inode->content.symlink.target, e);
}

static int read_special(struct fields *f, struct inode *inode, int extended)
{
    (void)field32(f);
    if (inode->type == INODE_BLOCK_DEVICE || inode->type == INODE_CHARACTER_DEVICE)
        inode->content.device = field32(f);
    if (extended)
        inode->xattrs = field32(f);
    return f->failed ? -1 : 0;
}

static int read_content(struct fields *f, struct tree *t, struct inode *inode, int extended, struct error *e)
{
    switch (inode->type) {
    case INODE_DIRECTORY: return read_directory(f, inode, extended, e);
    case INODE_FILE: return read_file(f, t, inode, extended, e);
    case INODE_SYMLINK: return read_symlink(f, t, inode, extended, e);
    default: return read_special(f, inode, extended);
    }
}

static int check_tables(const struct archive *a, const struct inode *inode, struct error *e)
{
    if (inode->uid_index >= a->super.id_count || inode->gid_index >= a->super.id_count)
        return error_damaged(e, "inode %u has an owner outside the id table", inode->number);
    if (inode->xattrs != TREE_NONE && inode->xattrs >= a->xattr_count)
        return error_damaged(e, "inode %u has xattrs outside their table", inode->number);
    return 0;
}

int inode_read(struct archive *a, struct tree *t, uint64_t reference, uint32_t *index, struct error *e)
{
    struct fields f = {.archive = a, .error = e};
    if (metadata_seek(&f.cursor, a->super.inode_table_start, a->super.directory_table_start, reference, e) < 0)
        return -1;
    uint16_t type = field16(&f);
    int extended = type > INODE_SOCKET;
    struct inode inode = {.xattrs = TREE_NONE, .archive = a->index, .data_archive = a->index};
    inode.type = (uint8_t)(extended ? type - INODE_SOCKET : type);
    inode.mode = field16(&f) & 07777;
    inode.uid_index = field16(&f);
    inode.gid_index = field16(&f);
    inode.mtime = field32(&f);
    inode.number = field32(&f);
    if (f.failed)
        return -1;
    if (type < SQFS_INODE_DIR || type > SQFS_INODE_EXT_SOCKET)
        return error_damaged(e, "an inode has type %u", type);
    if (read_content(&f, t, &inode, extended, e) < 0 || check_tables(a, &inode, e) < 0)
        return -1;
    if (tree_add_inode(t, (enum inode_type)inode.type, index, e) < 0)
        return -1;
    t->inodes[*index] = inode;
    return 0;
}

uint64_t inode_stored_size(const struct tree *t, const struct file_content *f)
{
    uint64_t stored = 0;
    for (uint32_t i = 0; i < f->block_count; i++)
        stored += SQFS_ON_DISK_BLOCK_SIZE(t->blocks[f->blocks + i]);
    return stored;
}
