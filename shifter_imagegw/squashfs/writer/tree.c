/* SPDX-License-Identifier: BSD-3-Clause */
#include "tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "array.h"

enum { FIRST_TABLE = 1024 };

int tree_init(struct tree *tree, const struct limits *limits, struct failure *failure)
{
    *tree = (struct tree){.limits = limits};
    if (getrandom(&tree->key, sizeof tree->key, 0) != (ssize_t)sizeof tree->key)
        return fail_conversion(failure, errno, "the kernel gives no random bytes");
    tree->table = calloc(FIRST_TABLE, sizeof *tree->table);
    if (tree->table == NULL)
        return fail_memory(failure);
    tree->table_size = FIRST_TABLE;
    uint32_t root;
    if (tree_add_inode(tree, S_IFDIR | 0755, &root, failure) < 0)
        return -1;
    tree->inodes[root].flags = INODE_IMPLIED;
    return 0;
}

void tree_destroy(struct tree *tree)
{
    free(tree->nodes);
    free(tree->inodes);
    free(tree->texts);
    free(tree->table);
}

int tree_add_text(struct tree *tree, const char *text, size_t size, uint32_t *offset, struct failure *failure)
{
    size_t needed = tree->text_size + size;
    if (needed > tree->limits->max_text || needed > UINT32_MAX)
        return fail_limit(failure, "more than %llu bytes of names, link targets and attributes",
                          (unsigned long long)tree->limits->max_text);
    if (!ARRAY_RESERVE(tree->texts, tree->text_capacity, needed))
        return fail_memory(failure);
    memcpy(tree->texts + tree->text_size, text, size);
    *offset = (uint32_t)tree->text_size;
    tree->text_size = needed;
    return 0;
}

const char *tree_name(const struct tree *tree, uint32_t node, size_t *size)
{
    const char *name = tree->texts + tree->nodes[node].name;
    *size = (unsigned char)name[0];
    return name + 1;
}

/* The slot that holds the name, or the free one where it belongs. */
static size_t slot_of(const struct tree *tree, uint32_t directory, const char *name, size_t size)
{
    size_t slot = (size_t)siphash(tree->key, directory, name, size) & (tree->table_size - 1);
    for (; tree->table[slot] != 0; slot = (slot + 1) & (tree->table_size - 1)) {
        uint32_t node = tree->table[slot] - 1;
        size_t known;
        if (tree->nodes[node].directory == directory) {
            const char *text = tree_name(tree, node, &known);
            if (known == size && memcmp(text, name, size) == 0)
                break;
        }
    }
    return slot;
}

static bool grow_table(struct tree *tree)
{
    uint32_t *bigger = calloc(tree->table_size * 2, sizeof *bigger);
    if (bigger == NULL)
        return false;
    free(tree->table);
    tree->table = bigger;
    tree->table_size *= 2;
    for (uint32_t node = 0; node < tree->node_count; node++) {
        size_t size;
        const char *name = tree_name(tree, node, &size);
        tree->table[slot_of(tree, tree->nodes[node].directory, name, size)] = node + 1;
    }
    return true;
}

uint32_t tree_find(const struct tree *tree, uint32_t directory, const char *name, size_t size)
{
    return tree->table[slot_of(tree, directory, name, size)] - 1; /* 0 becomes TREE_NONE */
}

int tree_add_node(struct tree *tree, uint32_t directory, const char *name, size_t size, uint32_t inode, uint32_t *node,
                  struct failure *failure)
{
    if (tree->node_count >= tree->limits->max_entries)
        return fail_limit(failure, "more than %llu entries", (unsigned long long)tree->limits->max_entries);
    if (!ARRAY_RESERVE(tree->nodes, tree->node_capacity, tree->node_count + 1))
        return fail_memory(failure);
    if (tree->node_count >= tree->table_size / 4 * 3 && !grow_table(tree))
        return fail_memory(failure);
    char text[NAME_CEILING + 2];
    text[0] = (char)size;
    memcpy(text + 1, name, size);
    text[size + 1] = '\0';
    uint32_t offset;
    if (tree_add_text(tree, text, size + 2, &offset, failure) < 0)
        return -1;
    size_t slot = slot_of(tree, directory, name, size);
    *node = (uint32_t)tree->node_count++;
    tree->nodes[*node] = (struct node){.directory = directory, .next = tree->inodes[directory].directory.first,
                                       .name = offset, .inode = inode};
    tree->inodes[directory].directory.first = *node;
    tree->table[slot] = *node + 1;
    return 0;
}

int tree_add_inode(struct tree *tree, uint16_t mode, uint32_t *inode, struct failure *failure)
{
    /* Every entry makes one at most, and each implied directory: max_entries bounds nodes, this bounds what was
     * replaced. */
    if (tree->inode_count >= TREE_NONE || tree->inode_count >= 2 * tree->limits->max_entries + 1)
        return fail_limit(failure, "more than %llu entries", (unsigned long long)tree->limits->max_entries);
    if (!ARRAY_RESERVE(tree->inodes, tree->inode_capacity, tree->inode_count + 1))
        return fail_memory(failure);
    *inode = (uint32_t)tree->inode_count++;
    struct inode *made = &tree->inodes[*inode];
    *made = (struct inode){.mode = mode, .xattrs = TREE_NONE};
    if (S_ISDIR(mode))
        made->directory.first = TREE_NONE;
    return 0;
}

static int compare_names(const void *left, const void *right, void *context)
{
    /* Both are NUL-terminated, and no name holds a NUL. */
    const struct tree *tree = context;
    return strcmp(tree->texts + tree->nodes[*(const uint32_t *)left].name + 1,
                  tree->texts + tree->nodes[*(const uint32_t *)right].name + 1);
}

struct numbering {
    struct tree *tree;
    uint32_t *sorted; /* of one directory at a time */
    size_t sorted_capacity;
    uint32_t count;
    struct failure *failure;
};

static int sort_children(struct numbering *run, uint32_t directory, size_t *count)
{
    struct tree *tree = run->tree;
    *count = 0;
    for (uint32_t node = tree->inodes[directory].directory.first; node != TREE_NONE; node = tree->nodes[node].next) {
        if (!ARRAY_RESERVE(run->sorted, run->sorted_capacity, *count + 1))
            return fail_memory(run->failure);
        run->sorted[(*count)++] = node;
    }
    if (*count == 0)
        return 0;
    qsort_r(run->sorted, *count, sizeof *run->sorted, compare_names, tree);
    tree->inodes[directory].directory.first = run->sorted[0];
    for (size_t i = 0; i < *count; i++)
        tree->nodes[run->sorted[i]].next = i + 1 < *count ? run->sorted[i + 1] : TREE_NONE;
    return 0;
}

/* Recursion is as deep as directories are nested: limits.max_depth. */
static int number_children(struct numbering *run, uint32_t directory)
{
    struct tree *tree = run->tree;
    size_t count;
    if (sort_children(run, directory, &count) < 0)
        return -1;
    for (uint32_t node = tree->inodes[directory].directory.first; node != TREE_NONE; node = tree->nodes[node].next) {
        struct inode *inode = tree_inode(tree, node);
        if (inode->number == 0) {
            inode->number = ++run->count;
            inode->links = 0;
        }
        if (S_ISDIR(inode->mode))
            tree->inodes[directory].links++;
        else
            inode->links++;
    }
    for (uint32_t node = tree->inodes[directory].directory.first; node != TREE_NONE; node = tree->nodes[node].next)
        if (S_ISDIR(tree_inode(tree, node)->mode) && number_children(run, tree->nodes[node].inode) < 0)
            return -1;
    return 0;
}

/* Makes whiteouts of the directories that have one and hold nothing but whiteouts. Whether `directory` holds nothing
 * else. Recursion as above. */
static bool settle_whiteouts(struct tree *tree, uint32_t directory)
{
    bool hollow = true;
    for (uint32_t node = tree->inodes[directory].directory.first; node != TREE_NONE; node = tree->nodes[node].next) {
        struct inode *inode = tree_inode(tree, node);
        if ((inode->flags & INODE_WHITEOUT) != 0)
            continue;
        bool gone = S_ISDIR(inode->mode) && settle_whiteouts(tree, tree->nodes[node].inode) &&
                    (inode->flags & (INODE_IMPLIED | INODE_WHITED)) != 0;
        if (gone && (inode->flags & INODE_WHITED) != 0)
            *inode = (struct inode){.mode = S_IFCHR, .flags = INODE_WHITEOUT, .xattrs = TREE_NONE};
        hollow = hollow && gone;
    }
    return hollow;
}

int tree_number(struct tree *tree, uint32_t *count, struct failure *failure)
{
    free(tree->table); /* nothing is looked up any more */
    tree->table = NULL;
    (void)settle_whiteouts(tree, 0);
    struct numbering run = {.tree = tree, .count = 1, .failure = failure};
    tree->inodes[0].number = 1;
    tree->inodes[0].links = 0;
    int result = number_children(&run, 0);
    free(run.sorted);
    *count = run.count;
    return result;
}
