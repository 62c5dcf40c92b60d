/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Image ids: SHA-256 digests as 64 lower-case hex digits (docs/image-store.md).
 */
#ifndef SHIFTER_SPANK_IMAGE_ID_H
#define SHIFTER_SPANK_IMAGE_ID_H

#include <stdbool.h>
#include <string.h>

enum { IMAGE_ID_SIZE = 64 + 1 };

static inline bool image_id_is_valid(const char *text)
{
    return strspn(text, "0123456789abcdef") == IMAGE_ID_SIZE - 1 && text[IMAGE_ID_SIZE - 1] == '\0';
}

#endif
