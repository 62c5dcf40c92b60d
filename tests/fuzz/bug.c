/* SPDX-License-Identifier: BSD-3-Clause */
#include "bug.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void bug(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fputs("BUG: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    abort();
}
