/* SPDX-License-Identifier: BSD-3-Clause */
#include "extents.h"

#include <stdlib.h>

#include "sort.h"
#include "tree.h"

enum { MAX_GAP = 64 << 10, GAP_SHARE = 100, ALIGNED_SIZE = 1 << 20 };

int extents_add(struct extents *x, uint32_t archive, uint64_t start, uint64_t size, struct error *e)
{
    /* Files of a directory mostly lie one behind the other. */
    struct extent *last = x->count > 0 ? &x->items[x->count - 1] : NULL;
    if (last != NULL && last->archive == archive && last->start + last->size == start) {
        last->size += size;
        return 0;
    }
    struct extent *items = tree_reserve(x->items, &x->capacity, x->count + 1, sizeof *items, e);
    if (items == NULL)
        return -1;
    x->items = items;
    items[x->count++] = (struct extent){.start = start, .size = size, .archive = archive};
    return 0;
}

static int compare(const void *left, const void *right, void *context)
{
    const struct extent *l = left, *r = right;
    (void)context;
    if (l->archive != r->archive)
        return l->archive < r->archive ? -1 : 1;
    if (l->start != r->start)
        return l->start < r->start ? -1 : 1;
    return 0;
}

/* Whether `next` is to be copied together with the run before it, in which *wasted bytes are gaps already. */
static int joins(const struct extent *run, const struct extent *next, uint64_t *wasted)
{
    if (run->archive != next->archive)
        return 0;
    uint64_t end = run->start + run->size;
    uint64_t gap = next->start > end ? next->start - end : 0;
    if (gap > MAX_GAP || (gap > 0 && gap + *wasted > (run->size - *wasted) / GAP_SHARE))
        return 0;
    *wasted += gap;
    return 1;
}

int extents_plan(struct extents *x, uint64_t target, struct control *control, struct error *e)
{
    if (sort_items(x->items, x->count, sizeof *x->items, compare, NULL, control, e) < 0)
        return -1;
    size_t runs = 0;
    uint64_t wasted = 0;
    for (size_t i = 0; i < x->count; i++) {
        const struct extent next = x->items[i];
        struct extent *run = runs > 0 ? &x->items[runs - 1] : NULL;
        if (run == NULL || !joins(run, &next, &wasted)) {
            x->items[runs++] = next;
            wasted = 0;
        } else if (next.start + next.size > run->start + run->size) {
            run->size = next.start + next.size - run->start;
        }
    }
    x->count = runs;
    x->total = 0;
    for (size_t i = 0; i < runs; i++) {
        if (x->items[i].size >= ALIGNED_SIZE)
            target += (x->items[i].start - target) % OUTPUT_ALIGNMENT;
        x->items[i].target = target;
        target += x->items[i].size;
        x->total += x->items[i].size;
    }
    return 0;
}

uint64_t extents_target(const struct extents *x, uint32_t archive, uint64_t start)
{
    size_t low = 0, high = x->count; /* the last run that does not start behind it */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        const struct extent *run = &x->items[middle];
        if (run->archive > archive || (run->archive == archive && run->start > start))
            high = middle;
        else
            low = middle;
    }
    return x->items[low].target + (start - x->items[low].start);
}

int extents_copy(const struct extents *x, const struct archive *archives, struct output *o,
                 struct control *control, struct error *e)
{
    for (size_t i = 0; i < x->count; i++) {
        const struct extent *run = &x->items[i];
        if (output_pad(o, run->target, e) < 0 ||
            output_copy(o, &archives[run->archive], run->start, run->size, control, e) < 0)
            return -1;
    }
    return 0;
}
