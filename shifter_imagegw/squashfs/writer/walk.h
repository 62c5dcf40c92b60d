/* SPDX-License-Identifier: BSD-3-Clause
 *
 * From a path in a tar header to a place in the layer's tree. No file system is involved: a path that leads through a
 * symbolic link of the same layer is followed inside the tree, where `..` ends at its root.
 */
#ifndef WRITER_WALK_H
#define WRITER_WALK_H

#include <stdbool.h>

#include "failure.h"
#include "tree.h"

enum { WALK_ROOM = 4 * PATH_CEILING };

/* Bytes of link targets that all paths of a layer together may lead through: a second or two. Real layers take
 * thousands. */
enum { WALK_MAX_TARGETS = 200000000 };

struct walk {
    struct tree *tree;
    uint32_t directory; /* inode, or TREE_NONE where the layer has nothing */
    const char *name;   /* the last component, in `rest` */
    size_t name_size;   /* 0: the path is the root */

    /* Private: the way from the root to `directory`, its text, and what is left to walk at the end of `rest`. */
    uint32_t way[DEPTH_CEILING + 1];
    uint16_t ends[DEPTH_CEILING + 1];
    unsigned depth, links_followed;
    uint64_t targets_walked; /* bytes, of all paths so far */
    char path[PATH_CEILING + 1];
    char rest[WALK_ROOM];
    char *left;
};

enum walk_mode {
    WALK_LOOK,  /* what is not in the layer is TREE_NONE */
    WALK_CREATE /* directories that are not in the layer are made, marked as implied */
};

/* Checks a path and takes it apart. LayerError for `..`, limits for lengths. */
int walk_begin(struct walk *walk, struct tree *tree, const char *path, struct failure *failure);
/* Does a component of the path, or its last, start with the text? */
bool walk_any_starts(const struct walk *walk, const char *text);
bool walk_last_starts(const struct walk *walk, const char *text);
/* Goes to the directory of the last component. */
int walk_to_parent(struct walk *walk, enum walk_mode mode, struct failure *failure);
/* The directory of the last component, links resolved, from the root; not terminated. */
static inline const char *walk_directory(const struct walk *walk, size_t *size)
{
    *size = walk->ends[walk->depth];
    return walk->path;
}
/* Where it ended, with the last component, links resolved; into `buffer`. */
int walk_text(const struct walk *walk, char buffer[PATH_CEILING + 1], struct failure *failure);

#endif
