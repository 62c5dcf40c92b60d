/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Which parts of the archives' data areas the image needs, and where they go. Data blocks and fragment blocks are
 * copied as they are, archive by archive in the order they lie there; neighbours are copied in one run. A gap of at
 * most 64 KiB is copied along while a run's gaps are at most one percent of its data, so no more than that is wasted.
 *
 * A run of a mebibyte and more goes where it lies in its archive, modulo the blocks of filesystems, so that those that
 * can (XFS, btrfs) share the blocks of the archive with the image instead of copying them.
 */
#ifndef SHIFTER_MERGER_EXTENTS_H
#define SHIFTER_MERGER_EXTENTS_H

#include <stdint.h>

#include "archive.h"
#include "output.h"

struct extent {
    uint64_t start; /* in the archive */
    uint64_t size;
    uint64_t target; /* in the image */
    uint32_t archive;
};

struct extents {
    struct extent *items; /* once planned: runs, sorted, apart from each other */
    size_t count, capacity;
    uint64_t total; /* bytes of all runs */
};

int extents_add(struct extents *x, uint32_t archive, uint64_t start, uint64_t size, struct error *e);

/* Makes runs of the extents and gives each its place, the first at `target`. */
int extents_plan(struct extents *x, uint64_t target, struct control *control, struct error *e);

/* Where the byte at `start` of the archive goes; it must lie in an extent that was added. */
uint64_t extents_target(const struct extents *x, uint32_t archive, uint64_t start);

int extents_copy(const struct extents *x, const struct archive *archives, struct output *o,
                 struct control *control, struct error *e);

#endif
