/* SPDX-License-Identifier: BSD-3-Clause
 *
 * File contents to compressed blocks. libsquashfs' block processor compresses on several threads and hands the blocks
 * back in order; tails are packed into fragment blocks here, in the order in which they leave their window (tails.h).
 *
 * Its own fragments and de-duplication are left out: the search among blocks is linear for each file, the one among
 * fragments reads candidates back from disk, and a stranger can choose contents with equal (32 bit) hashes. Whole files
 * are compared instead (twins.h); the blocks of a copy are written by then, and the merge leaves them out.
 */
#ifndef WRITER_BLOCKS_H
#define WRITER_BLOCKS_H

#include <sqfs/block_processor.h>
#include <sqfs/block_writer.h>
#include <sqfs/compressor.h>
#include <sqfs/frag_table.h>

#include "output.h"
#include "recipe.h"
#include "tails.h"
#include "tree.h"
#include "twins.h"

struct block_sink {
    sqfs_block_writer_t writer; /* first: libsquashfs sees only this */
    struct blocks *blocks;
};

struct blocks {
    struct tree *tree;
    struct output *output;
    struct twins twins;
    struct block_sink sink;
    sqfs_compressor_t *compressor;
    sqfs_block_processor_t *processor;
    sqfs_frag_table_t *fragments;
    uint32_t block_size;

    uint32_t *sizes; /* of all data blocks, in order, as inodes have them; only the finished ones */
    size_t size_count, size_capacity;
    uint64_t submitted; /* data blocks so far */
    uintptr_t placed;   /* owner of the last block that was written */

    struct tails tails;
    struct tail *open_tail; /* of the open file, when it has one */
    uint8_t *fragment;      /* the block in the making */
    uint32_t fragment_used, fragment_count;

    bool discard; /* it is over: what is still under way is dropped */
    uint64_t body, tail; /* bytes of the open file that are still to come: for blocks, for the fragment */
};

int blocks_init(struct blocks *blocks, struct tree *tree, struct output *output, const struct recipe *recipe,
                struct failure *failure);
void blocks_destroy(struct blocks *blocks);

enum storage {
    STORE_COMPRESSED,
    STORE_PLAIN /* as it is, and its tail not among those of others */
};

/* One file at a time: begin with its size, append exactly so many bytes or zeros, end. */
int blocks_begin(struct blocks *blocks, uint32_t inode, uint64_t size, const struct place *place, enum storage storage,
                 struct failure *failure);
int blocks_append(struct blocks *blocks, const void *data, uint64_t size, struct failure *failure);
int blocks_append_zeros(struct blocks *blocks, uint64_t size, struct failure *failure);
int blocks_end(struct blocks *blocks, uint32_t inode, struct failure *failure);
static inline uint64_t blocks_missing(const struct blocks *blocks)
{
    return blocks->body + blocks->tail;
}

/* Waits for everything that is under way; now all inodes of files are complete. */
int blocks_finish(struct blocks *blocks, struct failure *failure);

#endif
