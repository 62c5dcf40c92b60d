/* SPDX-License-Identifier: BSD-3-Clause */
#include "sort.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { RUN = 4096 /* items, sorted by the C library: too few for anything that is wrong with its way to matter */ };

struct sorting {
    size_t size; /* bytes of an item */
    int (*compare)(const void *, const void *, void *);
    void *context;
    struct control *control;
};

/* Merges the sorted items [from, middle) and [middle, end) into `to`. */
static int merge(const struct sorting *s, const uint8_t *from, const uint8_t *middle, const uint8_t *end, uint8_t *to,
                 struct error *e)
{
    const uint8_t *left = from, *right = middle;
    while (left < middle || right < end) {
        int take_left = right == end || (left < middle && s->compare(left, right, s->context) <= 0);
        const uint8_t **next = take_left ? &left : &right;
        if (control_step(s->control, 1, e) < 0)
            return -1;
        memcpy(to, *next, s->size);
        *next += s->size;
        to += s->size;
    }
    return 0;
}

/* Merges neighbouring runs of `length` bytes each from `from` to `to`. */
static int merge_runs(const struct sorting *s, const uint8_t *from, uint8_t *to, size_t bytes, size_t length,
                      struct error *e)
{
    for (size_t at = 0; at < bytes; at += 2 * length) {
        size_t middle = bytes - at < length ? bytes : at + length;
        size_t end = bytes - middle < length ? bytes : middle + length;
        if (merge(s, from + at, from + middle, from + end, to + at, e) < 0)
            return -1;
    }
    return 0;
}

int sort_items(void *items, size_t count, size_t size, int (*compare)(const void *, const void *, void *),
               void *context, struct control *control, struct error *e)
{
    const struct sorting s = {.size = size, .compare = compare, .context = context, .control = control};
    uint8_t *from = items;
    for (size_t at = 0; at < count; at += RUN) {
        size_t part = count - at < RUN ? count - at : RUN;
        if (control_step(control, part, e) < 0)
            return -1;
        qsort_r(from + at * size, part, size, compare, context);
    }
    if (count <= RUN)
        return 0;
    uint8_t *scratch = malloc(count * size); /* no overflow: the items are in memory */
    if (scratch == NULL)
        return error_memory(e);
    uint8_t *to = scratch;
    int result = 0;
    for (size_t length = RUN * size; result == 0 && length < count * size; length *= 2) {
        result = merge_runs(&s, from, to, count * size, length, e);
        uint8_t *swapped = from;
        from = to;
        to = swapped;
    }
    if (from != items)
        memcpy(items, from, count * size);
    free(scratch);
    return result;
}
