/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The image engine as the fuzz targets see it, and what must hold whatever it was given. What does not ends the process.
 */
#ifndef FUZZ_ENGINE_H
#define FUZZ_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../shifter_imagegw/squashfs/writer/layer.h"
#include "bug.h"

enum { SCRATCH_FILES = 10 };

/* A file in memory; the same one for the same number: as it is, made empty, and made to hold something. */
int scratch_existing(unsigned number);
int scratch_file(unsigned number);
int scratch_holding(unsigned number, const uint8_t *data, size_t size);

/* Converts a layer into the empty file `fd` and seals it as the layer cache does. `pieces` decides how it is cut: 0 not
 * at all. False when the layer was refused: because of what it holds, never because of this machine. */
bool convert_layer(const uint8_t *data, size_t size, unsigned pieces, const struct recipe *recipe,
                   const struct limits *limits, int fd);

/* Merges into the empty file `fd`. False when they were refused. `sound`: the writer made all of them, so only an entry
 * that cannot be applied is a reason. */
bool merge_layers(const int *fds, size_t count, bool sound, int fd);

/* Looks at all metadata. False when it was refused. */
bool examine_image(int fd);

/* `fd` is what the writer or the merger made: sound metadata. */
void expect_sound(int fd, const char *what);

/* Fails unless the digest table behind an archive says what the files hold, or nothing. */
void expect_digests(int archive);

struct content {
    const uint8_t *bytes;
    size_t size;
    uint32_t mtime, inode; /* number of the inode */
};

/* Reads all files of a sound squashfs with libsquashfs' own readers: what is longer than 1 MiB in part, and without a
 * check. */
typedef void content_check(const struct content *content, void *context);
void read_contents(int fd, const char *what, content_check *check, void *context);

#endif
