/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Changes squashfs files where readers look: the superblock, the tables, the headers of metadata blocks.
 */
#ifndef FUZZ_ARCHIVE_MUTATOR_H
#define FUZZ_ARCHIVE_MUTATOR_H

#include <stddef.h>
#include <stdint.h>

/* Returns the new size, at most `room`. */
size_t mutate_archive(uint8_t *data, size_t size, size_t room, unsigned seed);

#endif
