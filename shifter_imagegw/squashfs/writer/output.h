/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The archive file behind libsquashfs: an open descriptor, written front to back, hashed on the way. Only the
 * superblock is written last, so the hash covers everything behind it, the digests too, and then the superblock.
 */
#ifndef WRITER_OUTPUT_H
#define WRITER_OUTPUT_H

#include <sqfs/io.h>
#include <sqfs/super.h>

#include "failure.h"

struct output;

/* `fd` stays the caller's; the file is empty. */
struct output *output_new(int fd, struct failure *failure);
void output_free(struct output *output);
sqfs_file_t *output_file(struct output *output);

/* Writes the superblock and returns the hash of the whole archive. */
int output_finish(struct output *output, const sqfs_super_t *super, unsigned char sha256[32], struct failure *failure);

/* What a libsquashfs function that returned `code` failed of. Always -1. */
int output_fail(const struct output *output, int code, const char *what, struct failure *failure);

#endif
