/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Archives as they lie in a cache that something damaged: the merge refuses them, or makes a sound image.
 *
 * Input: a byte of how, then archives, each behind its length of three bytes (little endian).
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqfs/super.h>

#include "archive_mutator.h"
#include "engine.h"
#include "tar_mutator.h"

enum { MAX_ARCHIVES = 4, PREFIX = 3, IMAGE = MAX_ARCHIVES, MAX_DIGESTS = 4096, DIGEST = 16, TRAILER = 96, PAGE = 4096 };
enum way { DOUBLED = 1, DIGESTED = 2, ALIKE = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

static size_t length_at(const uint8_t *data, size_t left)
{
    size_t length = data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16;
    return length < left - PREFIX ? length : left - PREFIX;
}

/* Appends digests and a trailer as a layer archive has them (shifter_imagegw/layers/trailer.py). They say that files are
 * equal which are not: with ALIKE all, else every third. */
static void append_digests(int fd, const uint8_t *archive, size_t size, unsigned way)
{
    sqfs_super_t super;
    if (size < sizeof super)
        return;
    memcpy(&super, archive, sizeof super);
    if (super.bytes_used > size || super.inode_count > MAX_DIGESTS)
        return;
    size_t table = (size_t)super.inode_count * DIGEST;
    size_t end = ((size_t)super.bytes_used + table + TRAILER + PAGE - 1) / PAGE * PAGE;
    size_t room = end - (size_t)super.bytes_used;
    uint8_t *tail = calloc(1, room);
    if (tail == NULL)
        bug("no memory");
    for (size_t i = 0; i < super.inode_count; i++)
        tail[i * DIGEST] = (way & ALIKE) != 0 ? 1 : (uint8_t)(i % 3);
    uint8_t *trailer = tail + room - TRAILER;
    memcpy(trailer, "shifter layer 2\n", 16);
    uint64_t numbers[] = {super.bytes_used, table};
    memcpy(trailer + 16, numbers, sizeof numbers);
    if (ftruncate(fd, (off_t)super.bytes_used) < 0 ||
        pwrite(fd, tail, room, (off_t)super.bytes_used) != (ssize_t)room)
        bug("a file in memory cannot be written");
    free(tail);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fds[2 * MAX_ARCHIVES];
    size_t count = 0;
    if (size == 0)
        return 0;
    unsigned way = data[0];
    for (size_t at = 1; count < MAX_ARCHIVES && size - at >= PREFIX; count++) {
        size_t length = length_at(data + at, size - at);
        const uint8_t *archive = data + at + PREFIX;
        fds[count] = scratch_holding((unsigned)count, archive, length);
        if ((way & DIGESTED) != 0)
            append_digests(fds[count], archive, length, way);
        at += PREFIX + length;
    }
    if ((way & DOUBLED) != 0) { /* what the older ones hold is replaced by the same */
        memcpy(fds + count, fds, count * sizeof *fds);
        count *= 2;
    }
    int image = scratch_file(IMAGE);
    if (merge_layers(fds, count, false, image))
        expect_sound(image, "the image");
    return 0;
}

/* Changes one of the archives, and its length with it. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    size_t starts[MAX_ARCHIVES], count = 0;
    for (size_t at = 1; count < MAX_ARCHIVES && at < size && size - at > PREFIX; count++) {
        starts[count] = at;
        at += PREFIX + length_at(data + at, size - at);
    }
    if (count == 0 || seed % 32 == 0)
        return mutate_bytes(data, size, max_size);
    if (seed % 32 == 1)
        data[0] = (uint8_t)(seed >> 8);
    uint8_t *start = data + starts[seed / 32 % count];
    size_t old = length_at(start, size - (size_t)(start - data));
    size_t rest = size - (size_t)(start - data) - PREFIX - old;
    size_t room = old + (max_size > size ? max_size - size : 0);
    uint8_t *behind = malloc(rest + 1);
    if (behind == NULL)
        return size;
    memcpy(behind, start + PREFIX + old, rest);
    size_t changed = mutate_archive(start + PREFIX, old, room, seed);
    memcpy(start + PREFIX + changed, behind, rest);
    free(behind);
    for (unsigned i = 0; i < PREFIX; i++)
        start[i] = (uint8_t)(changed >> 8 * i);
    return size - old + changed;
}
