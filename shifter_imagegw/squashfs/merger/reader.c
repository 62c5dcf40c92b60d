/* SPDX-License-Identifier: BSD-3-Clause */
#include "reader.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include <sqfs/dir.h>

#include "inode.h"
#include "resolve.h"

struct reader {
    struct archive *archive;
    struct tree *tree;
    enum reading reading;
    uint32_t *known; /* inode number -> index in the tree and one, or 0; a number seen twice is a hard link */
    uint64_t listings_left; /* bytes that the listings not read yet can have: no two directories share one */
    struct path path;
};

static int read_directory(struct reader *r, uint32_t directory, unsigned depth, struct error *e);

static int keep_link_target(void *context, const struct xattr *x, struct error *e)
{
    struct path *target = context;
    size_t mark;
    if (strcmp(x->name, XATTR_NAME_LINK) != 0)
        return 0;
    if (x->size >= TREE_TARGET_MAX)
        return error_damaged(e, "link target of %zu bytes", x->size);
    target->length = 0;
    return path_push(target, x->value, x->size, &mark, e);
}

/* Turns the placeholder of a hard link to an older layer into a link to that inode. */
static int resolve_link(struct reader *r, uint32_t index, struct error *e)
{
    struct tree *t = r->tree;
    struct path target = {0};
    uint32_t found = TREE_NONE;
    int result = archive_visit_xattrs(r->archive, t->inodes[index].xattrs, keep_link_target, &target, e);
    if (result == 0 && t->root != TREE_NONE)
        result = resolve_link_target(t, target.bytes, target.length, &found, e);
    free(target.bytes);
    if (result < 0)
        return -1;
    const char *path = (const char *)r->path.bytes;
    if (found == TREE_NONE)
        return error_entry(e, path, r->path.length, "is a hard link to a path that no older layer has");
    if (t->inodes[found].type == INODE_DIRECTORY)
        return error_entry(e, path, r->path.length, "is a hard link to a directory");
    t->inodes[index].type = INODE_LINK;
    t->inodes[index].content.link = found;
    return 0;
}

/* What the xattrs and the device number of an inode mean in a layer archive. */
static int interpret(struct reader *r, uint32_t index, struct error *e)
{
    struct inode *inode = &r->tree->inodes[index];
    if (inode->type == INODE_CHARACTER_DEVICE && inode->content.device == 0) {
        inode->type = INODE_WHITEOUT;
        return 0;
    }
    if (inode->xattrs == TREE_NONE)
        return 0;
    uint8_t marks;
    if (archive_xattr_marks(r->archive, inode->xattrs, &marks, e) < 0)
        return -1;
    if (inode->type == INODE_DIRECTORY) {
        inode->flags |= (marks & XATTR_OPAQUE) != 0 ? INODE_OPAQUE : 0;
        inode->flags |= (marks & XATTR_IMPLIED) != 0 ? INODE_IMPLIED : 0;
    } else if (inode->type == INODE_FILE && (marks & XATTR_LINK) != 0 && inode->content.file.size == 0) {
        return resolve_link(r, index, e);
    }
    return 0;
}

/* The inode at `reference`, which the directory says has this number; read once however many names it has. */
static int read_inode(struct reader *r, uint64_t reference, uint32_t number, uint32_t *index, struct error *e)
{
    struct tree *t = r->tree;
    if (number == 0 || number > r->archive->super.inode_count)
        return error_damaged(e, "inode number %u of %u", number, r->archive->super.inode_count);
    if (r->known[number] != 0) {
        *index = r->known[number] - 1;
        if (t->inodes[*index].type == INODE_DIRECTORY)
            return error_damaged(e, "directory inode %u has two names", number);
        return 0;
    }
    if (inode_read(r->archive, t, reference, index, e) < 0)
        return -1;
    if (t->inodes[*index].number != number)
        return error_damaged(e, "inode %u calls itself %u", number, t->inodes[*index].number);
    r->known[number] = *index + 1;
    return r->reading == READ_LAYER ? interpret(r, *index, e) : 0;
}

static int valid_name(const uint8_t *name, size_t length)
{
    if (length == 0 || length > TREE_NAME_MAX)
        return 0;
    if (memchr(name, '/', length) != NULL || memchr(name, '\0', length) != NULL)
        return 0;
    return !(name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')));
}

/* Children of a directory while its listing is read. */
struct listing {
    struct entry *children;
    size_t count, capacity;
    struct metadata_cursor cursor;
    uint32_t left; /* bytes of the listing that are not read yet */
};

static int take(struct reader *r, struct listing *l, void *out, uint32_t size, struct error *e)
{
    if (size > l->left)
        return error_damaged(e, "a directory listing ends too early");
    l->left -= size;
    return metadata_read(r->archive, &l->cursor, out, size, e);
}

static int read_entry(struct reader *r, struct listing *l, const sqfs_dir_header_t *header, struct error *e)
{
    uint16_t fields[4]; /* sqfs_dir_entry_t: offset, inode_diff, type, size */
    uint8_t name[TREE_NAME_MAX];
    if (control_step(r->tree->control, 4, e) < 0 || take(r, l, fields, sizeof fields, e) < 0)
        return -1;
    size_t length = (size_t)le16toh(fields[3]) + 1;
    if (length > sizeof name)
        return error_damaged(e, "a name has %zu bytes", length);
    if (take(r, l, name, (uint32_t)length, e) < 0)
        return -1;
    if (!valid_name(name, length))
        return error_damaged(e, "a name is empty, . or .., or holds / or NUL");
    struct entry *children = tree_reserve(l->children, &l->capacity, l->count + 1, sizeof *children, e);
    if (children == NULL)
        return -1;
    l->children = children;
    struct entry *child = &children[l->count];
    if (tree_add_name(r->tree, name, length, &child->name, e) < 0)
        return -1;
    if (l->count > 0 && tree_compare(r->tree, child[-1].name, child->name) >= 0)
        return error_damaged(e, "a directory is not sorted or has a name twice");
    size_t mark;
    if (path_push(&r->path, name, length, &mark, e) < 0)
        return -1;
    uint64_t reference = (uint64_t)le32toh(header->start_block) << 16 | le16toh(fields[0]);
    int32_t difference = (int16_t)le16toh(fields[1]);
    uint32_t number = le32toh(header->inode_number) + (uint32_t)difference;
    int result = read_inode(r, reference, number, &child->inode, e);
    path_pop(&r->path, mark);
    l->count++;
    return result;
}

static int read_listing(struct reader *r, const struct directory_content *d, struct listing *l, struct error *e)
{
    const sqfs_super_t *s = &r->archive->super;
    /* The size counts "." and "..", which are not stored, as 3 bytes. */
    l->left = d->listing_size > 3 ? d->listing_size - 3 : 0;
    if (l->left > r->listings_left)
        return error_damaged(e, "its directories list more than their table holds");
    r->listings_left -= l->left;
    uint64_t reference = (uint64_t)d->listing_block << 16 | d->listing_offset;
    if (l->left > 0 &&
        metadata_seek(&l->cursor, s->directory_table_start, r->archive->directory_table_end, reference, e) < 0)
        return -1;
    while (l->left > 0) {
        sqfs_dir_header_t header;
        if (take(r, l, &header, sizeof header, e) < 0)
            return -1;
        uint32_t last = le32toh(header.count);
        if (last >= SQFS_MAX_DIR_ENT)
            return error_damaged(e, "a directory header counts %u entries", last);
        for (uint32_t i = 0; i <= last; i++)
            if (read_entry(r, l, &header, e) < 0)
                return -1;
    }
    return 0;
}

/* Reads the directories among the children, and whether all that is below an implied directory is whiteouts. */
static int read_children(struct reader *r, uint32_t directory, unsigned depth, struct error *e)
{
    struct tree *t = r->tree;
    int hollow = (t->inodes[directory].flags & INODE_IMPLIED) != 0;
    for (uint32_t i = 0; i < t->inodes[directory].content.directory.count; i++) {
        struct entry child = t->inodes[directory].content.directory.children[i];
        if (t->inodes[child.inode].type == INODE_DIRECTORY) {
            const uint8_t *name = t->names + child.name;
            size_t mark;
            if (path_push(&r->path, name + 1, *name, &mark, e) < 0 || read_directory(r, child.inode, depth + 1, e) < 0)
                return -1;
            path_pop(&r->path, mark);
        }
        const struct inode *inode = &t->inodes[child.inode];
        hollow = hollow && (inode->type == INODE_WHITEOUT || (inode->flags & INODE_HOLLOW) != 0);
    }
    if (hollow)
        t->inodes[directory].flags |= INODE_HOLLOW;
    return 0;
}

static int read_directory(struct reader *r, uint32_t directory, unsigned depth, struct error *e)
{
    if (depth > TREE_MAX_DEPTH)
        return error_damaged(e, "directories are nested more than %d deep", TREE_MAX_DEPTH);
    struct directory_content d = r->tree->inodes[directory].content.directory;
    struct listing l = {0};
    if (read_listing(r, &d, &l, e) < 0) {
        free(l.children);
        return -1;
    }
    if (l.count > 0) {
        struct entry *fitted = realloc(l.children, l.count * sizeof *fitted);
        d.children = fitted != NULL ? fitted : l.children;
        d.count = (uint32_t)l.count;
    }
    r->tree->inodes[directory].content.directory = d;
    return read_children(r, directory, depth, e);
}

static int read_root(struct reader *r, uint32_t *root, struct error *e)
{
    if (inode_read(r->archive, r->tree, r->archive->super.root_inode_ref, root, e) < 0)
        return -1;
    struct inode *inode = &r->tree->inodes[*root];
    if (inode->type != INODE_DIRECTORY)
        return error_damaged(e, "the root is no directory");
    if (inode->number == 0 || inode->number > r->archive->super.inode_count)
        return error_damaged(e, "inode number %u of %u", inode->number, r->archive->super.inode_count);
    r->known[inode->number] = *root + 1;
    if (r->reading == READ_LAYER && interpret(r, *root, e) < 0)
        return -1;
    return read_directory(r, *root, 0, e);
}

/* What the directory table can hold: 8 KiB for each of its blocks. Bounds memory where listings overlap. */
static int measure_directory_table(struct archive *a, uint64_t *size, struct error *e)
{
    uint64_t position = a->super.directory_table_start;
    *size = 0;
    while (a->directory_table_end - position > sizeof(uint16_t)) {
        uint16_t header;
        if (control_step(a->control, 16, e) < 0 || archive_read_at(a, position, &header, sizeof header, e) < 0)
            return -1;
        uint64_t stored = sizeof header + (le16toh(header) & 0x7fff);
        *size += SQFS_META_BLOCK_SIZE;
        if (stored > a->directory_table_end - position)
            break; /* the list of another table's blocks, which follows them */
        position += stored;
    }
    return 0;
}

int reader_read(struct archive *a, struct tree *t, enum reading reading, uint32_t *root, struct error *e)
{
    struct reader r = {.archive = a, .tree = t, .reading = reading};
    size_t numbers = (size_t)a->super.inode_count + 1;
    /* An inode takes at least 20 bytes of its table, and a stored byte unpacks to no more than a block's 8 KiB. */
    uint64_t table = a->super.directory_table_start - a->super.inode_table_start;
    if (numbers > TREE_MAX_INODES || numbers / (SQFS_META_BLOCK_SIZE / 20) > table)
        return error_damaged(e, "counts %u inodes", a->super.inode_count);
    if (measure_directory_table(a, &r.listings_left, e) < 0)
        return -1;
    r.known = calloc(numbers, sizeof *r.known);
    if (r.known == NULL)
        return error_memory(e);
    int result = read_root(&r, root, e);
    free(r.known);
    free(r.path.bytes);
    return result;
}
