/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Sorting that can be stopped. qsort(3) cannot, and a C library may fall back on an order that a hostile archive makes
 * quadratic when there is little memory.
 */
#ifndef SHIFTER_MERGER_SORT_H
#define SHIFTER_MERGER_SORT_H

#include <stddef.h>

#include "error.h"

/* Sorts `count` items of `size` bytes; takes as much memory again while it runs. `context` is handed to `compare`. */
int sort_items(void *items, size_t count, size_t size, int (*compare)(const void *, const void *, void *),
               void *context, struct control *control, struct error *e);

#endif
