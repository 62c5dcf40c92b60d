/* SPDX-License-Identifier: BSD-3-Clause
 *
 * From an image specification to the open files of the image, as root, because the image store may be closed to users:
 * tag index and images (docs/image-store.md), and the gateway's word for a tag that the index lacks.
 */
#ifndef SHIFTER_IMAGE_STORE_H
#define SHIFTER_IMAGE_STORE_H

#include "as_root/process.h"
#include "as_user/caller.h"
#include "as_user/config.h"
#include "as_user/image.h"
#include "base/error.h"

/* The image store: `imagePath` opened once, O_PATH|O_DIRECTORY, no symlink followed, every component from / checked:
 * owner root or imageOwner, not writable by group or others (a sticky bit does not make up for it). Returns the
 * descriptor. */
int image_store_open(const struct config *config, struct error *e);

/* Resolves a spec to an id through the tag index below the store descriptor.
 * Returns 0 with id filled, 1 when the index has no such tag, -1 on error (damaged or untrusted index file). */
int image_index_lookup(int store_fd, const struct config *config, const struct image_spec *spec,
                       char id[IMAGE_ID_LENGTH + 1], struct error *e);
/* image_lookup.c. Forks, becomes the caller for good with the limits he had, executes `shifterimg lookup type:tag` of
 * udiRootPath, which only root may have written, with a constant environment, reads one line within gatewayTimeout. The
 * answer is hostile input: exactly 64 lower-case hex digits or an error. */
int image_gateway_lookup(const struct config *config, const struct image_spec *spec, const struct process *process,
                         const struct caller *caller, char id[IMAGE_ID_LENGTH + 1], struct error *e);

/* Opens the files of an image, each O_NOFOLLOW beneath the store descriptor. */
int image_open(int store_fd, const struct config *config, const char *id, struct image *out, struct error *e);

#endif
