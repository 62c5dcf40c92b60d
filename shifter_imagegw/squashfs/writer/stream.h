/* SPDX-License-Identifier: BSD-3-Clause
 *
 * From the compressed pieces of a layer to its tar stream: what compression it is shows in the first bytes (media types
 * of real registries lie). Counts and hashes what it hands out; the hash is the layer's diff_id.
 */
#ifndef WRITER_STREAM_H
#define WRITER_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "failure.h"
#include "feed.h"

struct stream;

/* max_bytes: uncompressed; max_ratio: uncompressed to compressed, looked at after the first 64 MiB. */
struct stream *stream_new(struct feed *feed, uint64_t max_bytes, uint64_t max_ratio, struct failure *failure);
void stream_free(struct stream *stream);

/* The next bytes of the tar stream, valid until the next call; size 0 at its end. */
int stream_next(struct stream *stream, const uint8_t **data, size_t *size, struct failure *failure);

uint64_t stream_bytes_in(const struct stream *stream);
uint64_t stream_bytes_out(const struct stream *stream);
int stream_digest(struct stream *stream, unsigned char sha256[32], struct failure *failure);

#endif
