/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The directory tree of one layer, compact: 16 bytes for a name's place, 56 for an inode, 6 to 12 in the look-up table,
 * and the name. Names are found through one keyed hash table over (directory, name), however large a directory is.
 */
#ifndef WRITER_TREE_H
#define WRITER_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "failure.h"
#include "recipe.h"
#include "siphash.h"

#define TREE_NONE UINT32_MAX

enum inode_flag {
    INODE_IMPLIED = 1, /* a directory that only paths of others name */
    INODE_OPAQUE = 2,  /* a directory that hides what older layers have in it */
    INODE_WHITEOUT = 4, /* no object: older layers' object of this name is gone */
    INODE_WRITTEN = 8,  /* `where` is an inode reference */
    INODE_TWIN = 16,    /* a file with the content of the inode that `where` says, until blocks_finish */
    INODE_WHITED = 32   /* a directory that has a whiteout and no entry: it is there for what else is below it */
};

struct inode {
    uint64_t size;      /* regular file: bytes */
    uint64_t where;     /* regular file: offset of the first block; once written: inode reference */
    uint32_t modified;  /* seconds since 1970 */
    uint32_t number;    /* of the inode in the archive, 0 until it has one */
    uint32_t links;     /* names; of a directory: subdirectories */
    uint32_t xattrs;    /* index of its set of attributes or TREE_NONE */
    uint16_t mode;      /* type and permissions */
    uint16_t owner, group; /* indices into the id table */
    uint16_t flags;
    union {
        struct {
            uint32_t blocks; /* index of the first block size */
            uint32_t fragment, offset;
            uint32_t digest; /* index of its content's in the twins */
        } file;
        struct {
            uint32_t first; /* node of the first child */
        } directory;
        struct {
            uint32_t target, length; /* offset in the texts */
        } symlink;
    };
};

struct node {
    uint32_t directory; /* inode it is a name in */
    uint32_t next;      /* node, the next name in the same directory */
    uint32_t name;      /* offset in the texts: length byte, bytes, NUL */
    uint32_t inode;
};

struct tree {
    const struct limits *limits;
    struct node *nodes;
    size_t node_count, node_capacity;
    struct inode *inodes; /* 0 is the root directory */
    size_t inode_count, inode_capacity;
    char *texts;
    size_t text_size, text_capacity;
    uint32_t *table; /* open addressing, node + 1 */
    size_t table_size;
    struct siphash_key key;
};

int tree_init(struct tree *tree, const struct limits *limits, struct failure *failure);
void tree_destroy(struct tree *tree);

/* Copies a text; its offset. -1 and a failure without room. */
int tree_add_text(struct tree *tree, const char *text, size_t size, uint32_t *offset, struct failure *failure);
const char *tree_name(const struct tree *tree, uint32_t node, size_t *size);

/* The node of a name in a directory, or TREE_NONE. */
uint32_t tree_find(const struct tree *tree, uint32_t directory, const char *name, size_t size);
/* Adds a name that is not there. */
int tree_add_node(struct tree *tree, uint32_t directory, const char *name, size_t size, uint32_t inode, uint32_t *node,
                  struct failure *failure);
/* Adds an inode that no name has yet; links is 0. */
int tree_add_inode(struct tree *tree, uint16_t mode, uint32_t *inode, struct failure *failure);

static inline struct inode *tree_inode(const struct tree *tree, uint32_t node)
{
    return &tree->inodes[tree->nodes[node].inode];
}

/* Sorts the names of each directory by their bytes, numbers all inodes that can be reached, parents first, siblings in
 * a row, and counts links. Returns how many inodes there are. Nothing can be looked up or added afterwards. */
int tree_number(struct tree *tree, uint32_t *count, struct failure *failure);

#endif
