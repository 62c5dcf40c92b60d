/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/file.h"

#include <errno.h>
#include <unistd.h>

#include "base/text.h"

char *file_read(int fd, off_t expected, size_t limit, size_t *length)
{
    size_t room = expected > 0 && (size_t)expected <= limit ? (size_t)expected + 1 : 4000;
    char *text = text_grow(NULL, room + 1, 1);
    ssize_t got;
    *length = 0;
    while ((got = read(fd, text + *length, room - *length)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        *length += (size_t)got;
        if (*length > limit) {
            errno = EFBIG;
            got = -1;
            break;
        }
        if (expected > 0 && *length < room)
            break;
        if (*length == room)
            text = text_grow(text, (room *= 2) + 1, 1);
    }
    text[*length] = '\0';
    if (got >= 0)
        return text;
    free(text);
    return NULL;
}
