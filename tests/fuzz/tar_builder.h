/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Small layers as tar streams.
 */
#ifndef FUZZ_TAR_BUILDER_H
#define FUZZ_TAR_BUILDER_H

#include <stddef.h>
#include <stdint.h>

/* The mtime of what is an empty file in an archive but none in its layer: a hard link to an older layer. */
#define TAR_NO_CONTENT 0u

struct tar {
    uint8_t *data; /* the caller's to free */
    size_t size, capacity;
};

/* `attributes`: four bits that decide about mode, owner and user xattrs. The mtime is `number`. */
void tar_file(struct tar *tar, const char *path, unsigned attributes, uint32_t number, const uint8_t *content,
              size_t size);

/* `type` is that of POSIX.1-2017, pax, "ustar Interchange Format". */
void tar_link(struct tar *tar, char type, const char *path, const char *target);
void tar_special(struct tar *tar, char type, const char *path, unsigned attributes);
void tar_end(struct tar *tar);

#endif
