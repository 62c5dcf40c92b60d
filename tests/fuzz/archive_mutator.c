/* SPDX-License-Identifier: BSD-3-Clause */
#include "archive_mutator.h"

#include <string.h>

#include <sqfs/super.h>

#include "tar_mutator.h"

enum { SUPERBLOCK = sizeof(sqfs_super_t) };

static uint32_t next(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* A field of the superblock: all are aligned to their size, and those of 64 bits come last. */
static void change_superblock(uint8_t *data, size_t size, uint32_t *state)
{
    enum { FIRST_WIDE = offsetof(sqfs_super_t, root_inode_ref) / 8, WIDE = SUPERBLOCK / 8 - FIRST_WIDE };
    uint64_t value;
    uint8_t *at = data + 8 * (FIRST_WIDE + next(state) % WIDE);
    memcpy(&value, at, sizeof value);
    switch (next(state) % 8) {
    case 0: value++; break;
    case 1: value--; break;
    case 2: value = next(state) % (size + 1); break;
    case 3: value = size; break;
    case 4: value ^= UINT64_C(1) << next(state) % 64; break;
    case 5: value = UINT64_MAX; break;
    case 6: memcpy(&value, data + 8 * (FIRST_WIDE + next(state) % WIDE), sizeof value); break;
    default: data[next(state) % SUPERBLOCK] ^= (uint8_t)(1 << next(state) % 8); return;
    }
    memcpy(at, &value, sizeof value);
}

/* Something small somewhere: a byte, a 16 or 32 bit number, or a run from elsewhere. */
static void change_somewhere(uint8_t *data, size_t size, uint32_t *state)
{
    static const uint32_t values[] = {0, 1, 2, 3, 7, 8, 9, 14, 255, 256, 0x7fff, 0x8000, 0x8001, 0xffff, 0xffffffff};
    size_t room = 1 + next(state) % 8, at = next(state) % (size - 8), from = next(state) % (size - 8);
    uint32_t value = values[next(state) % (sizeof values / sizeof *values)];
    switch (next(state) % 4) {
    case 0: memcpy(data + at, &value, room < 2 ? 1 : room < 5 ? 2 : 4); break;
    case 1: memmove(data + at, data + from, room); break;
    case 2: data[at] = (uint8_t)(data[at] + next(state) % 9 - 4); break;
    default: (void)mutate_bytes(data + at, room, room);
    }
}

/* Tables from where they start to the end of the file: data blocks are bytes that nobody looks at. */
static void change_tables(uint8_t *data, size_t size, uint32_t *state)
{
    uint64_t start;
    memcpy(&start, data + offsetof(sqfs_super_t, inode_table_start), sizeof start);
    if (start >= size || size - start <= 16)
        start = SUPERBLOCK;
    change_somewhere(data + start, size - (size_t)start, state);
}

size_t mutate_archive(uint8_t *data, size_t size, size_t room, unsigned seed)
{
    uint32_t state = seed | 1;
    if (size < SUPERBLOCK + 32 || next(&state) % 16 == 0)
        return mutate_bytes(data, size, room);
    for (unsigned left = 1 + next(&state) % 4; left > 0; left--) {
        if (next(&state) % 4 == 0)
            change_superblock(data, size, &state);
        else
            change_tables(data, size, &state);
    }
    return size;
}
