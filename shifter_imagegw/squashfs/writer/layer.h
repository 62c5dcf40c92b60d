/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The conversion of one layer, from its compressed pieces to its archive, in one pass.
 */
#ifndef WRITER_LAYER_H
#define WRITER_LAYER_H

#include "failure.h"
#include "feed.h"
#include "recipe.h"

struct summary {
    unsigned char diff_id[32];  /* SHA-256 of the uncompressed stream */
    unsigned char checksum[32]; /* SHA-256 of the archive behind its superblock, then of its superblock */
    uint64_t entries, bytes_in, bytes_tar, bytes_out;
};

/* Runs until the feed ends or something fails; `fd` is an empty file. */
int layer_convert(struct feed *feed, int fd, const struct recipe *recipe, const struct limits *limits,
                  struct summary *summary, struct failure *failure);

#endif
