/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Layer archives to image: each is read and put over what the older ones add up to, then all is written.
 */
#ifndef SHIFTER_MERGER_MERGE_H
#define SHIFTER_MERGER_MERGE_H

#include "image.h"

/* Merges `count` archives, oldest first, into the empty file `destination`. All descriptors stay the caller's. */
int merge(const int *fds, size_t count, int destination, struct control *control,
          struct image_summary *summary, struct error *e);

#endif
