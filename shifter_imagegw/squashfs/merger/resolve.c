/* SPDX-License-Identifier: BSD-3-Clause */
#include "resolve.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_SYMLINKS = 40 /* path_resolution(7) */ };

struct walk {
    struct tree *tree;
    uint32_t stack[TREE_MAX_DEPTH]; /* directories from the root to where we are */
    unsigned depth;
    unsigned symlinks;
    uint8_t *rest; /* the components still to go, at its end; the symlinks' targets are put in front of them */
    size_t length, capacity;
    const uint8_t *path; /* what it began with, for messages */
    size_t path_length;
    int create;
    uint32_t model;
};

/* Replaces what is left with `target`, a slash and what is left. */
static int prepend(struct walk *w, const uint8_t *target, size_t length, struct error *e)
{
    size_t needed = w->length + length + 1;
    if (needed > w->capacity) {
        size_t capacity = 2 * needed;
        uint8_t *rest = malloc(capacity);
        if (rest == NULL)
            return error_memory(e);
        if (w->length > 0)
            memcpy(rest + capacity - w->length, w->rest + w->capacity - w->length, w->length);
        free(w->rest);
        w->rest = rest;
        w->capacity = capacity;
    }
    uint8_t *start = w->rest + w->capacity - needed;
    memcpy(start, target, length);
    start[length] = '/';
    w->length = needed;
    return 0;
}

/* Cuts the next component off what is left; its length is 0 when there is none. */
static size_t next(struct walk *w, uint8_t *name, int *last)
{
    const uint8_t *at = w->rest + w->capacity - w->length, *end = w->rest + w->capacity;
    while (at < end && *at == '/')
        at++;
    const uint8_t *from = at;
    while (at < end && *at != '/')
        at++;
    size_t length = (size_t)(at - from);
    if (length <= TREE_NAME_MAX)
        memcpy(name, from, length);
    *last = at == end;
    w->length = (size_t)(end - at);
    return length;
}

static int make_directory(struct walk *w, const uint8_t *name, size_t length, uint32_t *made, struct error *e)
{
    if (tree_add_inode(w->tree, INODE_DIRECTORY, made, e) < 0)
        return -1;
    struct inode *inode = &w->tree->inodes[*made];
    const struct inode *model = &w->tree->inodes[w->model];
    inode->mode = 0755;
    inode->archive = model->archive;
    inode->uid_index = model->uid_index;
    inode->gid_index = model->gid_index;
    uint32_t directory = w->stack[w->depth - 1];
    if (tree_spend(w->tree, w->tree->inodes[directory].content.directory.count, w->path, w->path_length, e) < 0)
        return -1;
    return tree_insert(w->tree, directory, name, length, *made, e);
}

/* Goes on to `child`, which is not a final symlink: 1 to go on, 0 if the path ends in nothing, -1 on failure. */
static int enter(struct walk *w, uint32_t child, struct error *e)
{
    const struct inode *inode = &w->tree->inodes[child];
    if (inode->type == INODE_DIRECTORY) {
        if (w->depth == TREE_MAX_DEPTH)
            return 0;
        w->stack[w->depth++] = child;
        return 1;
    }
    if (inode->type != INODE_SYMLINK || ++w->symlinks > MAX_SYMLINKS)
        return 0;
    const uint8_t *target = w->tree->names + inode->content.symlink.target;
    if (*target == '/')
        w->depth = 1;
    return prepend(w, target, inode->content.symlink.length, e) < 0 ? -1 : 1;
}

/* Walks to the end. `follow_last`: a symlink or missing name at the end is treated like one in the middle. */
static int walk(struct walk *w, int follow_last, uint32_t *found, struct error *e)
{
    uint8_t name[TREE_NAME_MAX];
    int last;
    size_t length;
    for (size_t before = w->length; (length = next(w, name, &last)) > 0; before = w->length) {
        /* A symlink of 4095 bytes has two thousand components, or one and thousands of slashes. */
        if (tree_spend(w->tree, 1 + (before - w->length) / 8, w->path, w->path_length, e) < 0)
            return -1;
        if (length > sizeof name)
            return 0;
        if (name[0] == '.' && length == 1)
            continue;
        if (name[0] == '.' && name[1] == '.' && length == 2) {
            w->depth -= w->depth > 1;
            continue;
        }
        uint32_t child = tree_child(w->tree, w->stack[w->depth - 1], name, length);
        if (child == TREE_NONE && w->create && make_directory(w, name, length, &child, e) < 0)
            return -1;
        if (child == TREE_NONE)
            return 0;
        if (last && !follow_last) {
            *found = child;
            return 0;
        }
        int entered = enter(w, child, e);
        if (entered <= 0)
            return entered;
    }
    *found = w->stack[w->depth - 1];
    return 0;
}

static int start(struct tree *t, const uint8_t *path, size_t length, struct walk *w, int follow_last, uint32_t *found,
                 struct error *e)
{
    w->tree = t;
    w->stack[0] = t->root;
    w->depth = 1;
    w->path = path;
    w->path_length = w->length = w->capacity = length;
    *found = TREE_NONE;
    w->rest = malloc(length + 1);
    if (w->rest == NULL)
        return error_memory(e);
    if (length > 0)
        memcpy(w->rest, path, length);
    int result = walk(w, follow_last, found, e);
    free(w->rest);
    return result;
}

int resolve_link_target(const struct tree *t, const uint8_t *path, size_t length, uint32_t *found, struct error *e)
{
    struct walk w = {0};
    return start((struct tree *)t, path, length, &w, 0, found, e);
}

int resolve_directory(struct tree *t, const uint8_t *path, size_t length, int create, uint32_t model, uint32_t *found,
                      struct error *e)
{
    struct walk w = {.create = create, .model = model};
    return start(t, path, length, &w, 1, found, e);
}
