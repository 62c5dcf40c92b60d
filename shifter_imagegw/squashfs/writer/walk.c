/* SPDX-License-Identifier: BSD-3-Clause */
#include "walk.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_LINKS = 40 }; /* as the kernel, path_resolution(7) */

static bool is(const char *component, size_t size, const char *text)
{
    return size == strlen(text) && memcmp(component, text, size) == 0;
}

/* Copies the components that count to `rest`, one slash between them; their number. */
static int clean(struct walk *walk, const char *path, struct failure *failure)
{
    const struct limits *limits = walk->tree->limits;
    char *out = walk->rest;
    unsigned count = 0;
    for (const char *at = path; *at != '\0';) {
        size_t size = strcspn(at, "/");
        if (is(at, size, ".."))
            return fail_layer(failure, "a path with `..` in it");
        if (size > limits->max_name)
            return fail_limit(failure, "a name of more than %u bytes", limits->max_name);
        if (size > 0 && !is(at, size, ".")) {
            if ((size_t)(out - walk->rest) + size + 1 > limits->max_path)
                return fail_limit(failure, "a path of more than %u bytes", limits->max_path);
            if (++count > limits->max_depth)
                return fail_limit(failure, "more than %u directories deep", limits->max_depth);
            if (count > 1)
                *out++ = '/';
            memcpy(out, at, size);
            out += size;
        }
        at += size + (at[size] == '/');
    }
    *out = '\0';
    return 0;
}

int walk_begin(struct walk *walk, struct tree *tree, const char *path, struct failure *failure)
{
    walk->tree = tree;
    walk->directory = walk->way[0] = 0;
    walk->ends[0] = 0;
    walk->depth = walk->links_followed = 0;
    if (clean(walk, path, failure) < 0)
        return -1;
    size_t size = strlen(walk->rest);
    walk->left = walk->rest + sizeof walk->rest - size - 1;
    memmove(walk->left, walk->rest, size + 1);
    const char *slash = strrchr(walk->left, '/');
    walk->name = slash != NULL ? slash + 1 : walk->left;
    walk->name_size = strlen(walk->name);
    return 0;
}

bool walk_last_starts(const struct walk *walk, const char *text)
{
    return strncmp(walk->name, text, strlen(text)) == 0;
}

bool walk_any_starts(const struct walk *walk, const char *text)
{
    for (const char *at = walk->left; at != NULL; at = strchr(at, '/')) {
        at += *at == '/';
        if (strncmp(at, text, strlen(text)) == 0)
            return true;
    }
    return false;
}

static int push(struct walk *walk, uint32_t directory, const char *name, size_t size, struct failure *failure)
{
    const struct limits *limits = walk->tree->limits;
    if (walk->depth + 1 >= limits->max_depth)
        return fail_limit(failure, "more than %u directories deep", limits->max_depth);
    size_t end = walk->ends[walk->depth];
    if (end + 1 + size > limits->max_path)
        return fail_limit(failure, "a path of more than %u bytes", limits->max_path);
    if (end > 0)
        walk->path[end++] = '/';
    memcpy(walk->path + end, name, size);
    walk->depth++;
    walk->way[walk->depth] = walk->directory = directory;
    walk->ends[walk->depth] = (uint16_t)(end + size);
    return 0;
}

static int follow(struct walk *walk, const struct inode *link, struct failure *failure)
{
    if (++walk->links_followed > MAX_LINKS)
        return fail_layer(failure, "its path leads through more than %d symbolic links", MAX_LINKS);
    walk->targets_walked += link->symlink.length;
    if (walk->targets_walked > WALK_MAX_TARGETS)
        return fail_limit(failure, "the layer's paths lead through so many symbolic links that it was given up");
    if ((size_t)(walk->left - walk->rest) < (size_t)link->symlink.length + 1)
        return fail_layer(failure, "its path through symbolic links is too long");
    *--walk->left = '/';
    walk->left -= link->symlink.length;
    memcpy(walk->left, walk->tree->texts + link->symlink.target, link->symlink.length);
    if (*walk->left == '/') {
        walk->depth = 0;
        walk->directory = walk->way[0];
    }
    return 0;
}

/* A directory that no entry of its own has made (yet). Where the layer has a whiteout, the directory is a new one. */
static int imply(struct walk *walk, uint32_t node, const char *name, size_t size, struct failure *failure)
{
    struct tree *tree = walk->tree;
    uint32_t made;
    if (tree_add_inode(tree, S_IFDIR | 0755, &made, failure) < 0)
        return -1;
    if (node == TREE_NONE) {
        tree->inodes[made].flags = INODE_IMPLIED;
        if (tree_add_node(tree, walk->directory, name, size, made, &node, failure) < 0)
            return -1;
    } else {
        tree->inodes[made].flags = INODE_OPAQUE | INODE_WHITED;
        tree->nodes[node].inode = made;
    }
    return push(walk, made, name, size, failure);
}

static int step(struct walk *walk, const char *name, size_t size, enum walk_mode mode, struct failure *failure)
{
    if (size == 0 || is(name, size, "."))
        return 0;
    if (is(name, size, "..")) { /* only link targets have it */
        if (walk->depth > 0)
            walk->directory = walk->way[--walk->depth];
        return 0;
    }
    uint32_t node = walk->directory == TREE_NONE ? TREE_NONE : tree_find(walk->tree, walk->directory, name, size);
    const struct inode *inode = node == TREE_NONE ? NULL : tree_inode(walk->tree, node);
    if (inode == NULL || (inode->flags & INODE_WHITEOUT) != 0)
        return mode == WALK_CREATE ? imply(walk, node, name, size, failure)
                                   : push(walk, TREE_NONE, name, size, failure);
    if (S_ISDIR(inode->mode))
        return push(walk, walk->tree->nodes[node].inode, name, size, failure);
    if (S_ISLNK(inode->mode))
        return follow(walk, inode, failure);
    return fail_layer(failure, "it lies below %.*s, which is not a directory in this layer", (int)size, name);
}

int walk_to_parent(struct walk *walk, enum walk_mode mode, struct failure *failure)
{
    /* Whatever is put in front of it, the last component stays where it is. */
    while (walk->left < walk->name) {
        const char *name = walk->left;
        size_t size = strcspn(name, "/");
        if (size > walk->tree->limits->max_name)
            return fail_limit(failure, "a name of more than %u bytes", walk->tree->limits->max_name);
        walk->left += size + 1;
        if (step(walk, name, size, mode, failure) < 0)
            return -1;
    }
    return 0;
}

int walk_text(const struct walk *walk, char buffer[PATH_CEILING + 1], struct failure *failure)
{
    size_t end = walk->ends[walk->depth];
    if (end + 1 + walk->name_size > walk->tree->limits->max_path)
        return fail_limit(failure, "a path of more than %u bytes", walk->tree->limits->max_path);
    (void)snprintf(buffer, PATH_CEILING + 1, "%.*s%s%s", (int)end, walk->path, end > 0 ? "/" : "", walk->name);
    return 0;
}
