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

/* A copy of the array with room for at least `needed` items of `item_size` bytes; NULL without memory, then the old one
 * stays as it is. */
static inline void *array_grow(void *items, size_t *capacity, size_t needed, size_t item_size)
{
    size_t wanted = *capacity < 64 ? 64 : *capacity + *capacity / 2, bytes;
    if (wanted < needed)
        wanted = needed;
    if (__builtin_mul_overflow(wanted, item_size, &bytes))
        return NULL;
    void *grown = realloc(items, bytes);
    if (grown != NULL)
        *capacity = wanted;
    return grown;
}

/* Makes room for `needed` items in the array; false without memory, and nothing is lost. */
#define ARRAY_RESERVE(items, capacity, needed)                                                                         \
    ((needed) <= (capacity) || ({                                                                                      \
         void *grown_ = array_grow((items), &(capacity), (needed), sizeof *(items));                                   \
         if (grown_ != NULL)                                                                                           \
             (items) = grown_;                                                                                         \
         grown_ != NULL;                                                                                               \
     }))

#endif
