/* SPDX-License-Identifier: BSD-3-Clause */
#include "blocks.h"

#include <stdlib.h>
#include <string.h>

#include <sqfs/block.h>
#include <sqfs/error.h>

#include "../compressor.h"
#include "array.h"

enum { NO_FRAGMENT = -1, UNCOMPRESSED = 1 << 24, BACKLOG_PER_THREAD = 8, MAX_BACKLOG = 8192, ZEROS = 128 * 1024 };

static const sqfs_u32 data_flags = SQFS_BLK_DONT_FRAGMENT | SQFS_BLK_DONT_DEDUPLICATE | SQFS_BLK_DONT_HASH;
static const sqfs_u32 fragment_flags = SQFS_BLK_DONT_DEDUPLICATE | SQFS_BLK_DONT_HASH | SQFS_BLK_IGNORE_SPARSE;
/* Owner of fragment blocks; that of a data block is its inode + 1. */
static const uintptr_t fragments_owner = UINTPTR_MAX;

/* Called by the block processor, in the thread that submits, once per block and in the order of submission. */
static int write_block(sqfs_block_writer_t *writer, void *user, sqfs_u32 size, sqfs_u32 checksum, sqfs_u32 flags,
                       const sqfs_u8 *data, sqfs_u64 *location)
{
    (void)checksum;
    struct blocks *blocks = ((struct block_sink *)writer)->blocks;
    sqfs_file_t *file = output_file(blocks->output);
    uintptr_t owner = (uintptr_t)user;
    *location = file->get_size(file);
    if (size == 0 || blocks->discard) /* libsquashfs marks the end of a file by an empty block */
        return 0;
    bool hole = (flags & SQFS_BLK_IS_SPARSE) != 0;
    sqfs_u32 stored = hole ? 0 : size | (flags & SQFS_BLK_IS_COMPRESSED ? 0 : UNCOMPRESSED);
    if (!hole) {
        int result = file->write_at(file, *location, data, size);
        if (result != 0)
            return result;
    }
    if (owner == fragments_owner) {
        sqfs_u32 index;
        return sqfs_frag_table_append(blocks->fragments, *location, stored, &index);
    }
    if (!ARRAY_RESERVE(blocks->sizes, blocks->size_capacity, blocks->size_count + 1))
        return SQFS_ERROR_ALLOC;
    blocks->sizes[blocks->size_count++] = stored;
    struct inode *inode = &blocks->tree->inodes[owner - 1];
    if (blocks->placed != owner && (inode->flags & INODE_TWIN) == 0)
        inode->where = *location;
    blocks->placed = owner;
    return 0;
}

static sqfs_u64 count_blocks(const sqfs_block_writer_t *writer)
{
    return ((const struct block_sink *)writer)->blocks->size_count;
}

static void destroy_sink(sqfs_object_t *object)
{
    (void)object;
}

static int create_compressor(struct blocks *blocks, const struct recipe *recipe, struct failure *failure)
{
    sqfs_compressor_config_t config;
    int result = sqfs_compressor_config_init(&config, recipe->compressor, recipe->block_size, 0);
    if (recipe->compressor != SQFS_COMP_LZ4) /* it has no levels */
        config.level = recipe->level;
    if (result == 0)
        result = compressor_create(&config, &blocks->compressor);
    if (result != 0)
        return fail_conversion(failure, 0, "libsquashfs does not take compressor %s with level %u (error %d)",
                               sqfs_compressor_name_from_id(recipe->compressor), recipe->level, result);
    return 0;
}

int blocks_init(struct blocks *blocks, struct tree *tree, struct output *output, const struct recipe *recipe,
                struct failure *failure)
{
    *blocks = (struct blocks){.tree = tree, .output = output, .block_size = recipe->block_size};
    blocks->sink = (struct block_sink){
        .writer = {.base = {.destroy = destroy_sink}, .write_data_block = write_block, .get_block_count = count_blocks},
        .blocks = blocks};
    if (twins_init(&blocks->twins, failure) < 0 || create_compressor(blocks, recipe, failure) < 0)
        return -1;
    blocks->fragments = sqfs_frag_table_create(0);
    blocks->fragment = malloc(recipe->block_size);
    if (blocks->fragments == NULL || blocks->fragment == NULL)
        return fail_memory(failure);
    const sqfs_block_processor_desc_t wanted = {.size = sizeof wanted,
                                                .max_block_size = recipe->block_size,
                                                .num_workers = recipe->threads,
                                                .max_backlog = recipe->threads * BACKLOG_PER_THREAD,
                                                .cmp = blocks->compressor,
                                                .wr = &blocks->sink.writer};
    int result = sqfs_block_processor_create_ex(&wanted, &blocks->processor);
    return result == 0 ? 0 : output_fail(output, result, "data (no compression threads)", failure);
}

void blocks_destroy(struct blocks *blocks)
{
    /* The processor forgets to free what its threads still hold, so after a failure it has to get everything back. Each
     * call ends at the first block that went wrong. */
    blocks->discard = true;
    for (unsigned try = 0; blocks->processor != NULL && try < MAX_BACKLOG; try++)
        if (sqfs_block_processor_sync(blocks->processor) == 0)
            break;
    sqfs_destroy(blocks->processor);
    sqfs_destroy(blocks->fragments);
    sqfs_destroy(blocks->compressor);
    twins_destroy(&blocks->twins);
    tails_destroy(&blocks->tails);
    free(blocks->open_tail);
    free(blocks->fragment);
    free(blocks->sizes);
}

static int submit_fragment(struct blocks *blocks, struct failure *failure)
{
    if (blocks->fragment_used == 0)
        return 0;
    int result = sqfs_block_processor_submit_block(blocks->processor, (void *)fragments_owner, fragment_flags,
                                                   blocks->fragment, blocks->fragment_used);
    if (result != 0)
        return output_fail(blocks->output, result, "file data", failure);
    blocks->fragment_used = 0;
    blocks->fragment_count++;
    return 0;
}

/* Moves tails from their window to fragment blocks: what is too much there, or all. */
static int pack_tails(struct blocks *blocks, bool all, struct failure *failure)
{
    for (struct tail *tail; (tail = tails_take(&blocks->tails, all)) != NULL;) {
        if (tail->size > blocks->block_size - blocks->fragment_used && submit_fragment(blocks, failure) < 0)
            return -1;
        struct inode *inode = &blocks->tree->inodes[tail->inode];
        inode->file.fragment = blocks->fragment_count;
        inode->file.offset = blocks->fragment_used;
        memcpy(blocks->fragment + blocks->fragment_used, tail_content(tail), tail->size);
        blocks->fragment_used += tail->size;
    }
    return 0;
}

int blocks_begin(struct blocks *blocks, uint32_t inode, uint64_t size, const struct place *place, enum storage storage,
                 struct failure *failure)
{
    blocks->tail = storage == STORE_PLAIN ? 0 : size % blocks->block_size;
    blocks->body = size - blocks->tail;
    struct inode *made = &blocks->tree->inodes[inode];
    made->size = size;
    made->file.blocks = (uint32_t)blocks->submitted;
    made->file.fragment = made->file.offset = (uint32_t)NO_FRAGMENT;
    blocks->submitted += (blocks->body + blocks->block_size - 1) / blocks->block_size;
    if (blocks->submitted > UINT32_MAX)
        return fail_limit(failure, "more than %u data blocks", UINT32_MAX);
    if (blocks->tail > 0) {
        blocks->open_tail = tail_new(place, inode, (uint32_t)blocks->tail);
        if (blocks->open_tail == NULL)
            return fail_memory(failure);
    }
    if (twins_begin(&blocks->twins, size, (unsigned char)storage, failure) < 0)
        return -1;
    if (blocks->body == 0)
        return 0;
    sqfs_u32 flags = data_flags | (storage == STORE_PLAIN ? SQFS_BLK_DONT_COMPRESS : 0);
    int result = sqfs_block_processor_begin_file(blocks->processor, NULL, (void *)(uintptr_t)(inode + 1), flags);
    return result == 0 ? 0 : output_fail(blocks->output, result, "file data", failure);
}

int blocks_append(struct blocks *blocks, const void *data, uint64_t size, struct failure *failure)
{
    if (size > blocks_missing(blocks))
        return fail_layer(failure, "more data than its header says");
    if (twins_update(&blocks->twins, data, (size_t)size, failure) < 0)
        return -1;
    const uint8_t *bytes = data;
    if (blocks->body > 0 && size > 0) {
        size_t part = (size_t)(size < blocks->body ? size : blocks->body);
        int result = sqfs_block_processor_append(blocks->processor, bytes, part);
        blocks->body -= part;
        if (result == 0 && blocks->body == 0)
            result = sqfs_block_processor_end_file(blocks->processor);
        if (result != 0)
            return output_fail(blocks->output, result, "file data", failure);
        bytes += part;
        size -= part;
    }
    if (size > 0) {
        struct tail *tail = blocks->open_tail;
        memcpy(tail_content(tail) + (tail->size - blocks->tail), bytes, (size_t)size);
        blocks->tail -= size;
    }
    return 0;
}

int blocks_append_zeros(struct blocks *blocks, uint64_t size, struct failure *failure)
{
    static const uint8_t zeros[ZEROS];
    if (size > 0)
        twins_skip(&blocks->twins);
    for (; size > ZEROS; size -= ZEROS)
        if (blocks_append(blocks, zeros, ZEROS, failure) < 0)
            return -1;
    return blocks_append(blocks, zeros, size, failure);
}

int blocks_end(struct blocks *blocks, uint32_t inode, struct failure *failure)
{
    struct inode *copy = &blocks->tree->inodes[inode];
    if (twins_end(&blocks->twins, inode, &copy->file.digest, failure) < 0)
        return -1;
    uint32_t twin = copy->file.digest == TWINS_NONE ? inode : blocks->twins.known[copy->file.digest].inode;
    struct tail *tail = blocks->open_tail;
    blocks->open_tail = NULL;
    if (twin != inode) {
        free(tail);
        copy->where = twin;
        copy->flags |= INODE_TWIN;
    } else if (tail != NULL && !tails_put(&blocks->tails, tail)) {
        free(tail);
        return fail_memory(failure);
    }
    return pack_tails(blocks, false, failure);
}

int blocks_finish(struct blocks *blocks, struct failure *failure)
{
    if (pack_tails(blocks, true, failure) < 0 || submit_fragment(blocks, failure) < 0)
        return -1;
    int result = sqfs_block_processor_finish(blocks->processor);
    if (result == 0 && blocks->size_count != blocks->submitted)
        result = SQFS_ERROR_INTERNAL;
    if (result != 0)
        return output_fail(blocks->output, result, "file data", failure);
    for (size_t i = 0; i < blocks->tree->inode_count; i++) {
        struct inode *inode = &blocks->tree->inodes[i];
        if ((inode->flags & INODE_TWIN) == 0)
            continue;
        const struct inode *first = &blocks->tree->inodes[inode->where]; /* no twin itself */
        inode->file = first->file;
        inode->where = first->where;
    }
    return 0;
}
