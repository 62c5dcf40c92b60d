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
    unsigned char checksum[32]; /* SHA-256 of what was written behind the superblock, then of the superblock */
    uint64_t entries, bytes_in, bytes_tar;
    uint64_t bytes_out; /* of the file system; the digests are behind them */
    uint32_t inodes;    /* of the archive: so many digests */
};

/* Runs until the feed ends or something fails; `fd` is an empty file. */
int layer_convert(struct feed *feed, int fd, const struct recipe *recipe, const struct limits *limits,
                  struct summary *summary, struct failure *failure);

#endif
