/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The boot set: what nearly every start of a container reads before anything else. Stored as it is, a cold start spends
 * no time on unpacking 128 KiB for the few pages it maps (docs/conversion.md, "The boot set").
 */
#ifndef WRITER_BOOTSET_H
#define WRITER_BOOTSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BOOTSET_MAX_BYTES = 8 << 20 };

/* Decided by the place alone: `directory`, not terminated, is the path from the root without a leading slash, `name` the
 * last component. */
bool bootset_has(const char *directory, size_t directory_size, const char *name, uint64_t size);

#endif
