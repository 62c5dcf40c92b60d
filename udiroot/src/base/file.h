/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Whole files in memory.
 */
#ifndef SHIFTER_FILE_H
#define SHIFTER_FILE_H

#include <stddef.h>
#include <sys/types.h>

/* What is left to be read from `fd`, with a NUL behind it; NULL with errno, EFBIG when that is more than `limit`
 * bytes. `expected`: the size of a regular file, or room for one that the kernel writes in one piece: a short read is
 * its end; 0 when it is not known. */
char *file_read(int fd, off_t expected, size_t limit, size_t *length);

#endif
