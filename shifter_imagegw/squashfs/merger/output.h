/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The image being written, as libsquashfs wants to see a file: its own can only be opened by name.
 */
#ifndef SHIFTER_MERGER_OUTPUT_H
#define SHIFTER_MERGER_OUTPUT_H

#include <stdint.h>

#include <sqfs/io.h>

#include "archive.h"

struct output {
    sqfs_file_t file; /* first, so that a pointer to it is one to the output */
    int fd;           /* borrowed */
    uint64_t size;    /* bytes written so far */
    int errnum;       /* why the last call failed, or 0 */
    int plain_copy;   /* copy_file_range is of no use here */
};

enum { OUTPUT_ALIGNMENT = 4096 }; /* the blocks of XFS and btrfs, for all but exotic ones */

void output_init(struct output *o, int fd);

/* Makes the image, where it is shorter, `size` bytes long. */
int output_pad(struct output *o, uint64_t size, struct error *e);

/* Appends `size` bytes of the archive, in the kernel where it can. */
int output_copy(struct output *o, const struct archive *from, uint64_t position, uint64_t size,
                struct control *control, struct error *e);

#endif
