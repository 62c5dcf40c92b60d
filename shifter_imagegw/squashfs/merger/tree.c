/* SPDX-License-Identifier: BSD-3-Clause */
#include "tree.h"

#include <stdlib.h>
#include <string.h>

void tree_init(struct tree *t, struct control *control)
{
    memset(t, 0, sizeof *t);
    t->root = TREE_NONE;
    t->control = control;
}

void tree_destroy(struct tree *t)
{
    for (size_t i = 0; i < t->inode_count; i++)
        if (t->inodes[i].type == INODE_DIRECTORY && (t->inodes[i].flags & INODE_WRITTEN) == 0)
            free(t->inodes[i].content.directory.children);
    free(t->inodes);
    free(t->names);
    free(t->blocks);
    tree_init(t, t->control);
}

void *tree_reserve(void *array, size_t *capacity, size_t needed, size_t item, struct error *e)
{
    if (needed <= *capacity && array != NULL)
        return array;
    size_t wanted = *capacity < 64 ? 64 : *capacity * 2;
    if (wanted < needed)
        wanted = needed;
    void *grown = wanted <= SIZE_MAX / item ? realloc(array, wanted * item) : NULL;
    if (grown == NULL)
        error_memory(e);
    else
        *capacity = wanted;
    return grown;
}

int tree_spend(struct tree *t, uint64_t steps, const uint8_t *path, size_t length, struct error *e)
{
    t->effort += steps;
    if (t->effort <= TREE_MAX_EFFORT)
        return control_step(t->control, steps, e);
    return error_entry(e, (const char *)path, length,
                       "leads through so many symlinks and directories that it was given up");
}

int tree_add_inode(struct tree *t, enum inode_type type, uint32_t *index, struct error *e)
{
    if (t->inode_count >= TREE_MAX_INODES)
        return error_damaged(e, "more than %d inodes", TREE_MAX_INODES);
    struct inode *inodes = tree_reserve(t->inodes, &t->inode_capacity, t->inode_count + 1, sizeof *inodes, e);
    if (inodes == NULL)
        return -1;
    t->inodes = inodes;
    *index = (uint32_t)t->inode_count++;
    struct inode *inode = &t->inodes[*index];
    memset(inode, 0, sizeof *inode);
    inode->type = (uint8_t)type;
    inode->xattrs = TREE_NONE;
    return 0;
}

static int add_bytes(struct tree *t, const uint8_t *bytes, size_t length, uint32_t *offset, struct error *e)
{
    if (length > UINT32_MAX - t->names_size)
        return error_damaged(e, "more than 4 GiB of names");
    uint8_t *names = tree_reserve(t->names, &t->names_capacity, t->names_size + length, 1, e);
    if (names == NULL)
        return -1;
    t->names = names;
    *offset = (uint32_t)t->names_size;
    memcpy(t->names + t->names_size, bytes, length);
    t->names_size += length;
    return 0;
}

int tree_add_name(struct tree *t, const uint8_t *name, size_t length, uint32_t *offset, struct error *e)
{
    uint8_t stored[1 + TREE_NAME_MAX];
    stored[0] = (uint8_t)length;
    memcpy(stored + 1, name, length);
    return add_bytes(t, stored, length + 1, offset, e);
}

int tree_add_target(struct tree *t, const uint8_t *target, size_t length, uint32_t *offset, struct error *e)
{
    return add_bytes(t, target, length, offset, e);
}

static int compare_bytes(const uint8_t *left, size_t left_length, const uint8_t *right, size_t right_length)
{
    size_t common = left_length < right_length ? left_length : right_length;
    int order = memcmp(left, right, common);
    if (order != 0)
        return order;
    return left_length < right_length ? -1 : left_length > right_length;
}

int tree_compare(const struct tree *t, uint32_t left, uint32_t right)
{
    const uint8_t *l = t->names + left, *r = t->names + right;
    return compare_bytes(l + 1, *l, r + 1, *r);
}

/* Position of the first child that is not before `name`; *found says whether it is `name`. */
static uint32_t position(const struct tree *t, const struct directory_content *d, const uint8_t *name, size_t length,
                         int *found)
{
    uint32_t low = 0, high = d->count;
    *found = 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const uint8_t *other = t->names + d->children[middle].name;
        int order = compare_bytes(other + 1, *other, name, length);
        if (order == 0) {
            *found = 1;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint32_t tree_child(const struct tree *t, uint32_t directory, const uint8_t *name, size_t length)
{
    const struct directory_content *d = &t->inodes[directory].content.directory;
    int found;
    uint32_t at = position(t, d, name, length, &found);
    return found ? d->children[at].inode : TREE_NONE;
}

int tree_insert(struct tree *t, uint32_t directory, const uint8_t *name, size_t length, uint32_t inode,
                struct error *e)
{
    struct entry added = {.inode = inode};
    if (tree_add_name(t, name, length, &added.name, e) < 0)
        return -1;
    struct directory_content *d = &t->inodes[directory].content.directory;
    int found;
    uint32_t at = position(t, d, name, length, &found);
    struct entry *children = realloc(d->children, (d->count + (size_t)1) * sizeof *children);
    if (children == NULL)
        return error_memory(e);
    memmove(children + at + 1, children + at, (d->count - at) * sizeof *children);
    children[at] = added;
    d->children = children;
    d->count++;
    return 0;
}

int tree_count_names(struct tree *t, uint32_t directory, unsigned depth, struct error *e)
{
    struct inode *own = &t->inodes[directory];
    const struct directory_content *d = &own->content.directory;
    if (depth > TREE_MAX_DEPTH)
        return error_damaged(e, "directories are nested more than %d deep", TREE_MAX_DEPTH);
    own->nlink = 2;
    for (uint32_t c = 0; c < d->count; c++) {
        struct inode *child = &t->inodes[d->children[c].inode];
        if (control_step(t->control, 1, e) < 0)
            return -1;
        if (child->type != INODE_DIRECTORY) {
            child->nlink++;
            continue;
        }
        own->nlink++;
        if (tree_count_names(t, d->children[c].inode, depth + 1, e) < 0)
            return -1;
    }
    return 0;
}

int path_push(struct path *p, const uint8_t *name, size_t length, size_t *mark, struct error *e)
{
    uint8_t *bytes = tree_reserve(p->bytes, &p->capacity, p->length + length + 1, 1, e);
    if (bytes == NULL)
        return -1;
    p->bytes = bytes;
    *mark = p->length;
    if (p->length > 0)
        p->bytes[p->length++] = '/';
    memcpy(p->bytes + p->length, name, length);
    p->length += length;
    return 0;
}

void path_pop(struct path *p, size_t mark)
{
    p->length = mark;
}
