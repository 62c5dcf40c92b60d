/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Error convention of the extension: a function that can fail takes a `struct failure *` as its last parameter and
 * returns 0 or -1; the failure is filled in exactly once, where it is detected. The conversion loop adds the entry.
 */
#ifndef WRITER_FAILURE_H
#define WRITER_FAILURE_H

#include <stddef.h>

enum failure_kind {
    FAILURE_NONE,
    FAILURE_LAYER,      /* the layer is damaged, hostile or of an unknown form */
    FAILURE_LIMIT,      /* a configured limit was crossed */
    FAILURE_CONVERSION, /* this machine: disk, memory, libsquashfs */
    FAILURE_ABORTED     /* the caller gave up */
};

struct failure {
    enum failure_kind kind;
    char reason[512]; /* plain words, one line */
    char *entry;      /* path inside the layer, raw bytes, owned; NULL when no single entry is at fault */
};

int fail_layer(struct failure *failure, const char *format, ...) __attribute__((format(printf, 2, 3)));
int fail_limit(struct failure *failure, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* errnum > 0 appends its text. */
int fail_conversion(struct failure *failure, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int fail_memory(struct failure *failure);
int fail_aborted(struct failure *failure);

/* Remembers the entry at fault unless one is known already. */
void failure_name(struct failure *failure, const char *entry);
void failure_clear(struct failure *failure);

#endif
