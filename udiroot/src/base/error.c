/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/error.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { CAUSE = 128 }; /* bytes kept for the text of an error number */

int error_set(struct error *e, int errnum, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int used = vsnprintf(e->text, sizeof e->text, format, arguments);
    va_end(arguments);
    if (used < 0)
        used = 0;
    /* Names can be longer than a message; the cause is the part that must not be cut off. */
    size_t end = (size_t)used < sizeof e->text - CAUSE ? (size_t)used : sizeof e->text - CAUSE;
    if (errnum > 0)
        (void)snprintf(e->text + end, sizeof e->text - end, "%s: %s", end < (size_t)used ? "..." : "",
                       strerror(errnum));
    /* Names come from users and images: nothing of them may steer the terminal that shows the message. */
    for (unsigned char *c = (unsigned char *)e->text; *c != '\0'; c++) {
        /* The controls of ISO 6429's second set in UTF-8. */
        bool second_set = c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f;
        if (iscntrl(*c) || second_set)
            *c = '?';
        if (second_set)
            *++c = '?';
    }
    return -1;
}
