/* SPDX-License-Identifier: BSD-3-Clause */
#include "failure.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void __attribute__((format(printf, 3, 0)))
fill(struct failure *failure, enum failure_kind kind, const char *format, va_list arguments)
{
    failure->kind = kind;
    (void)vsnprintf(failure->reason, sizeof failure->reason, format, arguments);
}

int fail_layer(struct failure *failure, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fill(failure, FAILURE_LAYER, format, arguments);
    va_end(arguments);
    return -1;
}

int fail_limit(struct failure *failure, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fill(failure, FAILURE_LIMIT, format, arguments);
    va_end(arguments);
    return -1;
}

int fail_conversion(struct failure *failure, int errnum, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fill(failure, FAILURE_CONVERSION, format, arguments);
    va_end(arguments);
    size_t used = strlen(failure->reason);
    char text[128]; /* strerror_r: this is no program's only thread */
    if (errnum > 0)
        (void)snprintf(failure->reason + used, sizeof failure->reason - used, ": %s",
                       strerror_r(errnum, text, sizeof text));
    return -1;
}

int fail_memory(struct failure *failure)
{
    return fail_conversion(failure, ENOMEM, "the layer's directory tree does not fit in memory");
}

int fail_aborted(struct failure *failure)
{
    failure->kind = FAILURE_ABORTED;
    (void)snprintf(failure->reason, sizeof failure->reason, "the conversion was given up");
    return -1;
}

void failure_name(struct failure *failure, const char *entry)
{
    if (failure->entry == NULL && entry != NULL)
        failure->entry = strdup(entry); /* without memory the message only lacks the name */
}

void failure_clear(struct failure *failure)
{
    free(failure->entry);
    *failure = (struct failure){.kind = FAILURE_NONE};
}
