/* SPDX-License-Identifier: BSD-3-Clause */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <sqfs/error.h>

static void set(struct error *e, enum error_kind kind, int errnum)
{
    e->kind = kind;
    e->errnum = errnum;
    e->entry_length = 0;
}

int error_system(struct error *e, int errnum, const char *what)
{
    set(e, ERROR_SYSTEM, errnum);
    (void)snprintf(e->text, sizeof e->text, "%s", what);
    return -1;
}

int error_memory(struct error *e)
{
    set(e, ERROR_MEMORY, 0);
    (void)snprintf(e->text, sizeof e->text, "out of memory");
    return -1;
}

int error_damaged(struct error *e, const char *format, ...)
{
    set(e, ERROR_DAMAGED, 0);
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(e->text, sizeof e->text, format, arguments);
    va_end(arguments);
    return -1;
}

int error_entry(struct error *e, const char *path, size_t length, const char *reason)
{
    set(e, ERROR_ENTRY, 0);
    e->entry_length = length < sizeof e->entry ? length : sizeof e->entry;
    memcpy(e->entry, path, e->entry_length);
    (void)snprintf(e->text, sizeof e->text, "%s", reason);
    return -1;
}

int error_library(struct error *e, int code, int file_errno, const char *what)
{
    if (file_errno != 0)
        return error_system(e, file_errno, what);
    if (code == SQFS_ERROR_ALLOC)
        return error_memory(e);
    return error_damaged(e, "%s: libsquashfs error %d", what, code);
}

int control_check(struct control *control, struct error *e)
{
    control->steps = 0;
    if (control->check(control->context) == 0)
        return 0;
    set(e, ERROR_CANCELLED, 0);
    return -1;
}
