/* SPDX-License-Identifier: BSD-3-Clause */
#include "overlay.h"

#include <stdlib.h>
#include <string.h>

#include "resolve.h"

/* An implied directory of the layer that meets a symlink: its contents go to where the symlink leads. */
struct redirect {
    uint32_t upper;
    uint8_t *path;
    size_t length;
};

struct overlay {
    struct tree *tree;
    struct path path;
    struct redirect *redirects;
    size_t count, capacity;
    int following; /* redirects: any number of them may lead to one directory */
};

static int merge_directory(struct overlay *o, uint32_t lower, uint32_t upper, struct error *e);

static int redirect(struct overlay *o, uint32_t upper, struct error *e)
{
    struct redirect *redirects = tree_reserve(o->redirects, &o->capacity, o->count + 1, sizeof *redirects, e);
    if (redirects == NULL)
        return -1;
    o->redirects = redirects;
    uint8_t *path = malloc(o->path.length + 1);
    if (path == NULL)
        return error_memory(e);
    memcpy(path, o->path.bytes, o->path.length);
    redirects[o->count++] = (struct redirect){.upper = upper, .path = path, .length = o->path.length};
    return 0;
}

/* A directory of the layer over `lower` (TREE_NONE: nothing); *stays is what the name stands for then. */
static int place_directory(struct overlay *o, uint32_t lower, uint32_t upper, uint32_t *stays, struct error *e)
{
    const struct inode *inodes = o->tree->inodes;
    unsigned flags = inodes[upper].flags;
    *stays = lower;
    if (lower != TREE_NONE && inodes[lower].type == INODE_DIRECTORY)
        return merge_directory(o, lower, upper, e);
    if (lower != TREE_NONE && inodes[lower].type == INODE_SYMLINK && (flags & INODE_IMPLIED) != 0 &&
        (flags & INODE_OPAQUE) == 0)
        return redirect(o, upper, e);
    if ((flags & INODE_HOLLOW) != 0)
        return 0;
    *stays = upper;
    return merge_directory(o, TREE_NONE, upper, e);
}

/* One name of the layer over what the older layers have under it. */
static int place(struct overlay *o, uint32_t lower, const struct entry *upper, uint32_t *stays, struct error *e)
{
    const struct inode *inode = &o->tree->inodes[upper->inode];
    *stays = upper->inode;
    if (inode->type == INODE_WHITEOUT)
        *stays = TREE_NONE;
    else if (inode->type == INODE_LINK)
        *stays = inode->content.link;
    if (inode->type != INODE_DIRECTORY)
        return 0;
    const uint8_t *name = o->tree->names + upper->name;
    size_t mark;
    if (path_push(&o->path, name + 1, *name, &mark, e) < 0 || place_directory(o, lower, upper->inode, stays, e) < 0)
        return -1;
    path_pop(&o->path, mark);
    return 0;
}

/* Walks both sorted lists at once; `merged` has room for both. Nothing here adds to the tree's pools. */
static int merge_children(struct overlay *o, const struct directory_content *lower,
                          const struct directory_content *upper, struct entry *merged, uint32_t *count, struct error *e)
{
    uint32_t l = 0, u = 0;
    while (l < lower->count || u < upper->count) {
        int order = l == lower->count   ? 1
                    : u == upper->count ? -1
                                        : tree_compare(o->tree, lower->children[l].name, upper->children[u].name);
        if (control_step(o->tree->control, 1, e) < 0)
            return -1;
        if (order < 0) {
            merged[(*count)++] = lower->children[l++];
            continue;
        }
        struct entry entry = upper->children[u];
        if (place(o, order == 0 ? lower->children[l].inode : TREE_NONE, &entry, &entry.inode, e) < 0)
            return -1;
        if (entry.inode != TREE_NONE)
            merged[(*count)++] = entry;
        l += order == 0;
        u++;
    }
    return 0;
}

/* Owner, mode, time and xattrs of the newer directory. */
static void take_attributes(struct inode *to, const struct inode *from)
{
    to->mode = from->mode;
    to->uid_index = from->uid_index;
    to->gid_index = from->gid_index;
    to->mtime = from->mtime;
    to->xattrs = from->xattrs;
    to->archive = from->archive;
}

/* Without `lower`, `upper` itself becomes a directory of the merged tree. */
static int merge_directory(struct overlay *o, uint32_t lower, uint32_t upper, struct error *e)
{
    struct tree *t = o->tree;
    struct inode *newer = &t->inodes[upper];
    struct inode *target = lower == TREE_NONE ? newer : &t->inodes[lower];
    struct directory_content older = {0};
    if (lower != TREE_NONE && (newer->flags & INODE_OPAQUE) == 0)
        older = target->content.directory;
    if (lower != TREE_NONE && (newer->flags & INODE_IMPLIED) == 0)
        take_attributes(target, newer);

    size_t room = (size_t)older.count + newer->content.directory.count;
    if (o->following && tree_spend(t, room, o->path.bytes, o->path.length, e) < 0)
        return -1;
    struct entry *merged = malloc((room + 1) * sizeof *merged);
    if (merged == NULL)
        return error_memory(e);
    uint32_t count = 0;
    if (merge_children(o, &older, &newer->content.directory, merged, &count, e) < 0) {
        free(merged);
        return -1;
    }
    if (lower != TREE_NONE)
        free(target->content.directory.children);
    free(newer->content.directory.children);
    newer->content.directory.children = NULL;
    newer->content.directory.count = 0;
    struct entry *fitted = realloc(merged, ((size_t)count + 1) * sizeof *fitted);
    target->content.directory.children = fitted != NULL ? fitted : merged;
    target->content.directory.count = count;
    return 0;
}

static int follow(struct overlay *o, const struct redirect *r, struct error *e)
{
    uint32_t directory;
    int hollow = (o->tree->inodes[r->upper].flags & INODE_HOLLOW) != 0;
    if (resolve_directory(o->tree, r->path, r->length, !hollow, r->upper, &directory, e) < 0)
        return -1;
    if (directory == TREE_NONE)
        return hollow ? 0
                      : error_entry(e, (const char *)r->path, r->length,
                                    "is a symlink that leads to no directory, but has entries below it");
    size_t mark;
    o->path.length = 0;
    if (path_push(&o->path, r->path, r->length, &mark, e) < 0)
        return -1;
    return merge_directory(o, directory, r->upper, e);
}

int overlay_apply(struct tree *t, uint32_t upper, struct error *e)
{
    struct overlay o = {.tree = t};
    int result = merge_directory(&o, t->root, upper, e);
    if (result == 0 && t->root == TREE_NONE)
        t->root = upper;
    /* Following one may meet another; each time a directory of the layer is used up. */
    o.following = 1;
    for (size_t i = 0; result == 0 && i < o.count; i++) {
        struct redirect r = o.redirects[i];
        result = follow(&o, &r, e);
    }
    for (size_t i = 0; i < o.count; i++)
        free(o.redirects[i].path);
    free(o.redirects);
    free(o.path.bytes);
    return result;
}
