/* SPDX-License-Identifier: BSD-3-Clause */
#include "digests.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { AT_ONCE = 4096 };

struct digests {
    const struct tree *tree;
    const struct twins *twins;
    sqfs_file_t *file;
    uint32_t count; /* of inodes so far: the number of the last one */
    size_t waiting;
    unsigned char buffer[AT_ONCE][TWINS_DIGEST];
};

static int flush(struct digests *digests)
{
    sqfs_file_t *file = digests->file;
    size_t size = digests->waiting * TWINS_DIGEST;
    digests->waiting = 0;
    return size == 0 ? 0 : file->write_at(file, file->get_size(file), digests->buffer, size);
}

static int put(struct digests *digests, const struct inode *inode)
{
    unsigned char *place = digests->buffer[digests->waiting++];
    if (S_ISREG(inode->mode) && inode->file.digest != TWINS_NONE)
        memcpy(place, digests->twins->known[inode->file.digest].digest, TWINS_DIGEST);
    else
        memset(place, 0, TWINS_DIGEST);
    digests->count++;
    return digests->waiting == AT_ONCE ? flush(digests) : 0;
}

/* Goes the way of tree_number, so that no list of all inodes is needed. As deep as directories are nested:
 * limits.max_depth. */
static int put_children(struct digests *digests, uint32_t directory)
{
    const struct tree *tree = digests->tree;
    const uint32_t first = tree->inodes[directory].directory.first;
    int result = 0;
    for (uint32_t node = first; result == 0 && node != TREE_NONE; node = tree->nodes[node].next)
        if (tree_inode(tree, node)->number > digests->count) /* else another name of it came before */
            result = put(digests, tree_inode(tree, node));
    for (uint32_t node = first; result == 0 && node != TREE_NONE; node = tree->nodes[node].next)
        if (S_ISDIR(tree_inode(tree, node)->mode))
            result = put_children(digests, tree->nodes[node].inode);
    return result;
}

int digests_write(const struct tree *tree, const struct twins *twins, struct output *output, struct failure *failure)
{
    struct digests *digests = calloc(1, sizeof *digests);
    if (digests == NULL)
        return fail_memory(failure);
    digests->tree = tree;
    digests->twins = twins;
    digests->file = output_file(output);
    int result = put(digests, &tree->inodes[0]);
    if (result == 0)
        result = put_children(digests, 0);
    if (result == 0)
        result = flush(digests);
    free(digests);
    return result == 0 ? 0 : output_fail(output, result, "the digests of files", failure);
}
