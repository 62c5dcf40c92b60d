/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The tree of names in memory: what a layer archive holds, and what the layers so far add up to. Everything is an index
 * into a pool, so an entry costs 8 bytes, its inode 64 and its name one byte more than its length. Directories hold
 * their children sorted by name, as squashfs wants them; so layers are merged by walking two sorted lists.
 * Nothing is freed one by one: what a newer layer hides stays in the pools until the tree is destroyed.
 */
#ifndef SHIFTER_MERGER_TREE_H
#define SHIFTER_MERGER_TREE_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define TREE_NONE UINT32_MAX /* no index */

enum { TREE_MAX_DEPTH = 2100, TREE_NAME_MAX = 255, TREE_TARGET_MAX = 4096 };

/* What bounds memory when an archive is damaged or hostile; all far above what a layer's limits let through. */
enum { TREE_MAX_INODES = 1 << 26, TREE_MAX_BLOCKS = 1 << 26 };

/* Steps through symlinks and children of directories gone over again, beyond what every layer costs, that one image may
 * take: a few seconds. Real images take thousands; hostile ones of a few kilobytes could take days. */
enum { TREE_MAX_EFFORT = 200000000 };

/* The numbers of squashfs' basic inode types, and two that exist only between layers. */
enum inode_type {
    INODE_DIRECTORY = 1,
    INODE_FILE = 2,
    INODE_SYMLINK = 3,
    INODE_BLOCK_DEVICE = 4,
    INODE_CHARACTER_DEVICE = 5,
    INODE_FIFO = 6,
    INODE_SOCKET = 7,
    INODE_WHITEOUT = 8, /* removes what older layers have under this name */
    INODE_LINK = 9,     /* is the inode `link` of the older layers */
};

enum inode_flags {
    INODE_OPAQUE = 1,   /* hides what older layers have in this directory */
    INODE_IMPLIED = 2,  /* the layer's tar names only things below this directory */
    INODE_HOLLOW = 4,   /* implied, and nothing but whiteouts below: never makes a directory where none is */
    INODE_NUMBERED = 8, /* has its number in the image */
    INODE_TWIN = 16,    /* an older file of the image has the same content */
    INODE_WRITTEN = 32, /* is in the image's inode table; of its content only `reference` is left */
};

struct entry {
    uint32_t name;  /* offset in names: a length byte, then that many bytes */
    uint32_t inode; /* index in inodes */
};

struct file_content {
    uint64_t size;            /* bytes */
    uint64_t start;           /* position of the first data block in its archive */
    uint32_t blocks;          /* index in blocks: one on-disk size per data block, as in the squashfs inode */
    uint32_t block_count;
    uint32_t fragment;        /* index of the fragment block in its archive, or TREE_NONE */
    uint32_t fragment_offset; /* bytes into the unpacked fragment block */
};

struct directory_content {
    struct entry *children; /* sorted by name, no name twice */
    uint32_t count;
    uint32_t listing_block; /* where the archive's directory table lists the children; only while it is read */
    uint32_t listing_size;
    uint16_t listing_offset;
};

struct symlink_content {
    uint32_t target; /* offset in names */
    uint32_t length; /* bytes */
};

struct inode {
    uint8_t type;          /* enum inode_type */
    uint8_t flags;         /* enum inode_flags */
    uint16_t mode;         /* permission bits */
    uint16_t uid_index;    /* in the archive's id table */
    uint16_t gid_index;
    uint32_t mtime;        /* seconds since 1970 */
    uint32_t xattrs;       /* set of the archive, or TREE_NONE */
    uint32_t archive;      /* where owner and xattrs come from */
    uint32_t number;       /* inode number: the archive's while it is read, the image's once it is numbered */
    uint32_t nlink;        /* names in the image; 0 until they are counted */
    uint32_t data_archive; /* where a file's blocks and fragment are: its own, or that of an equal file */
    union {
        struct file_content file;
        struct directory_content directory;
        struct symlink_content symlink;
        uint32_t device;    /* encoded as in squashfs */
        uint32_t link;      /* index in inodes */
        uint64_t reference; /* where the image's inode table has it */
    } content;
};

struct tree {
    struct inode *inodes;
    size_t inode_count, inode_capacity;
    uint8_t *names;
    size_t names_size, names_capacity;
    uint32_t *blocks;
    size_t block_count, block_capacity;
    uint32_t root; /* the merged tree so far, or TREE_NONE */
    uint64_t effort;
    struct control *control; /* borrowed */
};

void tree_init(struct tree *t, struct control *control);
void tree_destroy(struct tree *t);

/* `array`, moved if it must grow to hold `needed` items of `item` bytes; NULL on failure, then it is as it was. */
void *tree_reserve(void *array, size_t *capacity, size_t needed, size_t item, struct error *e);

/* Counts `steps` of TREE_MAX_EFFORT, and for the caller's check; fails with the entry at fault, the path from the root,
 * once they are used up. */
int tree_spend(struct tree *t, uint64_t steps, const uint8_t *path, size_t length, struct error *e);

/* A new zeroed inode; sets *index. Pointers into the pools are void afterwards. */
int tree_add_inode(struct tree *t, enum inode_type type, uint32_t *index, struct error *e);

/* Stores a name (at most TREE_NAME_MAX bytes) or a symlink target; sets the offset. */
int tree_add_name(struct tree *t, const uint8_t *name, size_t length, uint32_t *offset, struct error *e);
int tree_add_target(struct tree *t, const uint8_t *target, size_t length, uint32_t *offset, struct error *e);

/* Order of two names: bytes, the shorter first. */
int tree_compare(const struct tree *t, uint32_t left, uint32_t right);

/* Index of the inode called `name` in `directory`, or TREE_NONE. */
uint32_t tree_child(const struct tree *t, uint32_t directory, const uint8_t *name, size_t length);

/* Adds a child to a directory that has no such name. */
int tree_insert(struct tree *t, uint32_t directory, const uint8_t *name, size_t length, uint32_t inode,
                struct error *e);

/* Sets nlink of all that is below `directory`, whose depth is `depth`, and its own. */
int tree_count_names(struct tree *t, uint32_t directory, unsigned depth, struct error *e);

/* The path of what is being read or merged, from the root, without a leading slash. */
struct path {
    uint8_t *bytes;
    size_t length, capacity;
};

/* Appends "/name"; *mark is what path_pop wants. */
int path_push(struct path *p, const uint8_t *name, size_t length, size_t *mark, struct error *e);
void path_pop(struct path *p, size_t mark);

#endif
