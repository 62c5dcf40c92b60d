/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Arrays that grow. Large ones are grown by mremap inside realloc, so growing neither copies nor doubles memory.
 */
#ifndef WRITER_ARRAY_H
#define WRITER_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Makes room for `needed` items of `item_size` bytes in the array at `items`. False without memory; nothing is lost. */
static inline bool array_reserve(void *items, size_t *capacity, size_t needed, size_t item_size)
{
    if (needed <= *capacity)
        return true;
    size_t wanted = *capacity < 64 ? 64 : *capacity + *capacity / 2, bytes;
    if (wanted < needed)
        wanted = needed;
    if (__builtin_mul_overflow(wanted, item_size, &bytes))
        return false;
    void *grown = realloc(*(void **)items, bytes);
    if (grown == NULL)
        return false;
    *(void **)items = grown;
    *capacity = wanted;
    return true;
}

#endif
