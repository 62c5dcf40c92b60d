/* SPDX-License-Identifier: BSD-3-Clause */
#include "xattrs.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include <sqfs/block.h>
#include <sqfs/error.h>
#include <sqfs/meta_writer.h>

#include "array.h"
#include "tree.h"

void xattrs_init(struct xattrs *xattrs, const struct limits *limits, struct siphash_key key)
{
    *xattrs = (struct xattrs){.limits = limits, .key = key};
}

void xattrs_destroy(struct xattrs *xattrs)
{
    free(xattrs->bytes);
    free(xattrs->sets);
    free(xattrs->table);
}

void xattrs_begin(struct xattrs *xattrs)
{
    xattrs->building = (struct xattr_set){.offset = (uint32_t)xattrs->size};
}

static int append(struct xattrs *xattrs, const void *data, size_t size, struct failure *failure)
{
    size_t needed = xattrs->size + size;
    if (needed > xattrs->limits->max_text || needed > UINT32_MAX)
        return fail_limit(failure, "more than %llu bytes of extended attributes",
                          (unsigned long long)xattrs->limits->max_text);
    if (xattrs->building.size + size > xattrs->limits->max_xattrs)
        return fail_limit(failure, "more than %u bytes of extended attributes on one entry",
                          xattrs->limits->max_xattrs);
    if (!ARRAY_RESERVE(xattrs->bytes, xattrs->capacity, needed))
        return fail_memory(failure);
    memcpy(xattrs->bytes + xattrs->size, data, size);
    xattrs->size = needed;
    xattrs->building.size += (uint32_t)size;
    return 0;
}

int xattrs_copy(struct xattrs *xattrs, uint32_t set, struct failure *failure)
{
    if (set == TREE_NONE)
        return 0;
    struct xattr_set source = xattrs->sets[set];
    if (!ARRAY_RESERVE(xattrs->bytes, xattrs->capacity, xattrs->size + source.size))
        return fail_memory(failure);
    xattrs->building.count += source.count;
    return append(xattrs, xattrs->bytes + source.offset, source.size, failure);
}

/* A pair on disk: prefix and size of the name, the name without its prefix, size of the value, the value. */
int xattrs_add(struct xattrs *xattrs, SQFS_XATTR_TYPE prefix, const char *name, const void *value, size_t size,
               struct failure *failure)
{
    size_t name_size = strlen(name);
    if (name_size == 0 || name_size > NAME_CEILING)
        return fail_limit(failure, "an extended attribute has a name of %zu bytes", name_size);
    if (size > xattrs->limits->max_xattrs)
        return fail_limit(failure, "more than %u bytes of extended attributes on one entry",
                          xattrs->limits->max_xattrs);
    const uint16_t head[2] = {htole16((uint16_t)prefix), htole16((uint16_t)name_size)};
    const uint32_t value_size = htole32((uint32_t)size);
    if (append(xattrs, head, sizeof head, failure) < 0 || append(xattrs, name, name_size, failure) < 0 ||
        append(xattrs, &value_size, sizeof value_size, failure) < 0 || append(xattrs, value, size, failure) < 0)
        return -1;
    xattrs->building.count++;
    return 0;
}

static size_t slot_of(const struct xattrs *xattrs, struct xattr_set set)
{
    const uint8_t *bytes = xattrs->bytes + set.offset;
    size_t slot = (size_t)siphash(xattrs->key, set.count, bytes, set.size) & (xattrs->table_size - 1);
    for (; xattrs->table[slot] != 0; slot = (slot + 1) & (xattrs->table_size - 1)) {
        const struct xattr_set *known = &xattrs->sets[xattrs->table[slot] - 1];
        if (known->size == set.size && memcmp(xattrs->bytes + known->offset, bytes, set.size) == 0)
            break;
    }
    return slot;
}

static bool grow_table(struct xattrs *xattrs)
{
    size_t size = xattrs->table_size == 0 ? 64 : xattrs->table_size * 2;
    uint32_t *bigger = calloc(size, sizeof *bigger);
    if (bigger == NULL)
        return false;
    free(xattrs->table);
    xattrs->table = bigger;
    xattrs->table_size = size;
    for (uint32_t set = 0; set < xattrs->count; set++)
        xattrs->table[slot_of(xattrs, xattrs->sets[set])] = set + 1;
    return true;
}

int xattrs_end(struct xattrs *xattrs, uint32_t *set, struct failure *failure)
{
    *set = TREE_NONE;
    if (xattrs->building.count == 0)
        return 0;
    if (xattrs->count >= xattrs->table_size / 2 && !grow_table(xattrs))
        return fail_memory(failure);
    size_t slot = slot_of(xattrs, xattrs->building);
    if (xattrs->table[slot] != 0) {
        xattrs->size = xattrs->building.offset;
        *set = xattrs->table[slot] - 1;
        return 0;
    }
    if (!ARRAY_RESERVE(xattrs->sets, xattrs->set_capacity, xattrs->count + 1))
        return fail_memory(failure);
    *set = (uint32_t)xattrs->count++;
    xattrs->sets[*set] = xattrs->building;
    xattrs->table[slot] = *set + 1;
    return 0;
}

/* All pairs, in metadata blocks; the references of the sets go to `ids`, in on-disk form. */
static int write_pairs(const struct xattrs *xattrs, sqfs_meta_writer_t *writer, sqfs_xattr_id_t *ids)
{
    for (size_t i = 0; i < xattrs->count; i++) {
        sqfs_u64 block;
        sqfs_u32 offset;
        sqfs_meta_writer_get_position(writer, &block, &offset);
        ids[i] = (sqfs_xattr_id_t){.xattr = htole64(block << 16 | offset),
                                   .count = htole32(xattrs->sets[i].count),
                                   .size = htole32(xattrs->sets[i].size)};
        int result =
            sqfs_meta_writer_append(writer, xattrs->bytes + xattrs->sets[i].offset, xattrs->sets[i].size);
        if (result != 0)
            return result;
    }
    return sqfs_meta_writer_flush(writer);
}

/* The references in metadata blocks; where each block begins goes to `locations`, in on-disk form. */
static int write_ids(const struct xattrs *xattrs, sqfs_meta_writer_t *writer, const sqfs_xattr_id_t *ids,
                     uint64_t start, uint64_t *locations)
{
    const size_t per_block = SQFS_META_BLOCK_SIZE / sizeof *ids;
    for (size_t i = 0; i < xattrs->count; i++) {
        sqfs_u64 block;
        sqfs_u32 offset;
        sqfs_meta_writer_get_position(writer, &block, &offset);
        if (i % per_block == 0)
            locations[i / per_block] = htole64(start + block);
        int result = sqfs_meta_writer_append(writer, &ids[i], sizeof ids[i]);
        if (result != 0)
            return result;
    }
    return sqfs_meta_writer_flush(writer);
}

static int write_tables(const struct xattrs *xattrs, sqfs_file_t *file, sqfs_super_t *super,
                        sqfs_compressor_t *compressor, sqfs_xattr_id_t *ids, uint64_t *locations, size_t blocks)
{
    uint64_t pairs_start = file->get_size(file);
    sqfs_meta_writer_t *writer = sqfs_meta_writer_create(file, compressor, 0);
    if (writer == NULL)
        return SQFS_ERROR_ALLOC;
    int result = write_pairs(xattrs, writer, ids);
    if (result == 0) {
        sqfs_meta_writer_reset(writer);
        result = write_ids(xattrs, writer, ids, file->get_size(file), locations);
    }
    sqfs_destroy(writer);
    if (result != 0)
        return result;
    super->xattr_id_table_start = file->get_size(file);
    super->flags &= (sqfs_u16)~SQFS_FLAG_NO_XATTRS;
    const sqfs_xattr_id_table_t head = {.xattr_table_start = htole64(pairs_start),
                                        .xattr_ids = htole32((uint32_t)xattrs->count)};
    result = file->write_at(file, super->xattr_id_table_start, &head, sizeof head);
    if (result == 0)
        result = file->write_at(file, file->get_size(file), locations, blocks * sizeof *locations);
    return result;
}

int xattrs_write(struct xattrs *xattrs, struct output *output, sqfs_super_t *super, sqfs_compressor_t *compressor,
                 struct failure *failure)
{
    super->xattr_id_table_start = UINT64_MAX;
    super->flags |= SQFS_FLAG_NO_XATTRS;
    if (xattrs->count == 0)
        return 0;
    size_t blocks = (xattrs->count * sizeof(sqfs_xattr_id_t) + SQFS_META_BLOCK_SIZE - 1) / SQFS_META_BLOCK_SIZE;
    sqfs_xattr_id_t *ids = calloc(xattrs->count, sizeof *ids);
    uint64_t *locations = calloc(blocks, sizeof *locations);
    int result = ids == NULL || locations == NULL
                     ? SQFS_ERROR_ALLOC
                     : write_tables(xattrs, output_file(output), super, compressor, ids, locations, blocks);
    free(ids);
    free(locations);
    return result == 0 ? 0 : output_fail(output, result, "the extended attributes", failure);
}
