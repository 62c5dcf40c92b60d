/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Metadata blocks: a 16 bit header (bit 15: not compressed; the rest: stored size) and at most 8 KiB of content.
 */
#include "archive.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "tree.h"

enum { UNPACK_STEPS = 256 /* a block's 8 KiB, by the slowest of the compressors */ };

static int unpack(struct archive *a, struct metadata_block *block, uint64_t position, uint64_t end, struct error *e)
{
    if (control_step(a->control, UNPACK_STEPS, e) < 0)
        return -1;
    uint8_t stored[2 + SQFS_META_BLOCK_SIZE];
    uint64_t room = end - position;
    size_t ahead = room < sizeof stored ? (size_t)room : sizeof stored;
    if (archive_read_at(a, position, stored, ahead, e) < 0)
        return -1;
    uint32_t header = (uint32_t)stored[0] | (uint32_t)stored[1] << 8;
    uint32_t size = header & 0x7fff;
    if (size == 0 || size > SQFS_META_BLOCK_SIZE || size + 2 > ahead)
        return error_damaged(e, "metadata block at %llu has a stored size of %u", (unsigned long long)position, size);
    if ((header & 0x8000) != 0) {
        memcpy(block->data, stored + 2, size);
        block->size = size;
    } else {
        sqfs_s32 unpacked =
            a->decompressor->do_block(a->decompressor, stored + 2, size, block->data, sizeof block->data);
        if (unpacked <= 0 || (size_t)unpacked > sizeof block->data)
            return error_damaged(e, "metadata block at %llu does not unpack", (unsigned long long)position);
        block->size = (uint32_t)unpacked;
    }
    block->stored = size + 2;
    return 0;
}

/* The unpacked block at `position`, whose table ends at `end`; NULL on failure. It stays until the next call. */
static const struct metadata_block *fetch(struct archive *a, uint64_t position, uint64_t end, struct error *e)
{
    if (position >= end || end - position < 3) {
        error_damaged(e, "metadata at %llu lies outside its table", (unsigned long long)position);
        return NULL;
    }
    struct metadata_set *set =
        &a->cache->sets[(position ^ position >> 13 ^ (uint64_t)a->index * 7) % ARCHIVE_METADATA_SETS];
    for (unsigned i = 0; i < 2; i++) {
        const struct metadata_block *block = &set->blocks[i];
        if (block->position != position || block->archive != a->index)
            continue;
        set->oldest = 1 - i;
        if (block->stored <= end - position)
            return block;
        error_damaged(e, "metadata at %llu lies outside its table", (unsigned long long)position);
        return NULL;
    }
    struct metadata_block *block = &set->blocks[set->oldest];
    set->oldest = 1 - set->oldest;
    block->position = 0;
    if (unpack(a, block, position, end, e) < 0)
        return NULL;
    block->position = position;
    block->archive = a->index;
    return block;
}

int metadata_seek(struct metadata_cursor *c, uint64_t start, uint64_t end, uint64_t reference, struct error *e)
{
    uint64_t block = reference >> 16;
    c->offset = (uint32_t)(reference & 0xffff);
    c->end = end;
    if (start > end || block >= end - start || c->offset >= SQFS_META_BLOCK_SIZE)
        return error_damaged(e, "metadata reference %llx lies outside its table", (unsigned long long)reference);
    c->position = start + block;
    return 0;
}

int metadata_read(struct archive *a, struct metadata_cursor *c, void *out, size_t size, struct error *e)
{
    uint8_t *to = out;
    while (size > 0) {
        const struct metadata_block *block = fetch(a, c->position, c->end, e);
        if (block == NULL)
            return -1;
        if (c->offset >= block->size) {
            /* Only full blocks are followed by more of the same. */
            if (block->size != SQFS_META_BLOCK_SIZE || c->offset > block->size)
                return error_damaged(e, "metadata at %llu is too short", (unsigned long long)c->position);
            c->position += block->stored;
            c->offset = 0;
            continue;
        }
        size_t part = block->size - c->offset < size ? block->size - c->offset : size;
        if (to != NULL) {
            memcpy(to, block->data + c->offset, part);
            to += part;
        }
        c->offset += (uint32_t)part;
        size -= part;
    }
    return 0;
}

/* One block of a table: it must hold `size` bytes, which is all but for the last. */
static int load_block(struct archive *a, uint64_t position, uint64_t end, uint8_t *out, size_t size, struct error *e)
{
    const struct metadata_block *block = fetch(a, position, end, e);
    if (block == NULL)
        return -1;
    if (block->size != size)
        return error_damaged(e, "table block at %llu has %u bytes, not %zu", (unsigned long long)position, block->size,
                             size);
    memcpy(out, block->data, size);
    return 0;
}

int archive_load_table(struct archive *a, uint64_t start, size_t count, size_t item, void **out, struct error *e)
{
    size_t size = count * item; /* count < 2^32, item <= 16 */
    size_t blocks = (size + SQFS_META_BLOCK_SIZE - 1) / SQFS_META_BLOCK_SIZE;
    if (start > a->super.bytes_used || blocks > (a->super.bytes_used - start) / sizeof(uint64_t))
        return error_damaged(e, "a table of %zu items lies outside the file", count);
    uint8_t *table = NULL;
    size_t capacity = 0, done = 0;
    uint64_t before = a->data_start;
    /* Grows with what was really there, not with what a damaged count promises. */
    for (size_t i = 0; i < blocks; i++) {
        uint64_t position;
        size_t part = size - done < SQFS_META_BLOCK_SIZE ? size - done : SQFS_META_BLOCK_SIZE;
        uint8_t *grown = tree_reserve(table, &capacity, done + part, 1, e);
        if (grown == NULL)
            goto failed;
        table = grown;
        if (archive_read_at(a, start + i * sizeof position, &position, sizeof position, e) < 0)
            goto failed;
        position = le64toh(position);
        if (position < before || position >= start) {
            error_damaged(e, "a block of a table lies at %llu, outside it", (unsigned long long)position);
            goto failed;
        }
        if (load_block(a, position, start, table + done, part, e) < 0)
            goto failed;
        before = position + 1;
        done += part;
    }
    *out = table;
    return 0;
failed:
    free(table);
    return -1;
}
