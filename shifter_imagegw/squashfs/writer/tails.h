/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Tails of files on their way to fragment blocks, in a window of fixed size. What leaves it is sorted by directory and
 * name as far as the window reaches: the kernel keeps three unpacked fragment blocks by default
 * (SQUASHFS_FRAGMENT_CACHE_SIZE), and whoever reads a directory in the order of its listing would unpack one for nearly
 * every file if they lay there as a tar has them (docs/conversion.md, "Tails of files").
 *
 * The way is replacement selection (Knuth, "The Art of Computer Programming", volume 3, 5.4.1): the smallest tail that
 * does not come before the last one leaves first, the others wait for the next run. It makes runs of twice the window
 * of a random order, one run of a sorted one, and work for the compressing threads all the time.
 */
#ifndef WRITER_TAILS_H
#define WRITER_TAILS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All that lies in the window, with names and bookkeeping; the fuzzer's layers are small, and so is its window. */
#ifndef TAILS_WINDOW
#define TAILS_WINDOW ((size_t)8 << 20)
#endif

/* Where a file has its first name: the path from the root without a leading slash, and the last component. */
struct place {
    const char *directory, *name; /* not terminated */
    size_t directory_size, name_size;
};

struct tail {
    struct tail *next; /* in the queue */
    uint32_t inode, size, run;
    uint16_t directory_size, name_size;
    uint8_t bytes[]; /* directory, name, content */
};

struct tails {
    /* Most layers are sorted: what comes in order waits in a queue, at no cost. The rest is in a heap. Each has the next
     * one to leave at its front. */
    struct tail *first, *newest;
    struct tail **heap;
    size_t count, capacity; /* of the heap */
    size_t used;       /* bytes of memory */
    struct tail *last; /* that left */
};

/* A tail with room for `size` bytes of content, the caller's to free or to hand to tails_put; NULL without memory. */
struct tail *tail_new(const struct place *place, uint32_t inode, uint32_t size);
static inline uint8_t *tail_content(struct tail *tail)
{
    return tail->bytes + tail->directory_size + tail->name_size;
}

void tails_destroy(struct tails *tails);
/* False without memory, then the tail stays the caller's. */
bool tails_put(struct tails *tails, struct tail *tail);
/* The next tail that has to leave, valid until the next call, or NULL; `all`: until there is none. */
struct tail *tails_take(struct tails *tails, bool all);

#endif
