/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Error convention of the merger, as in the launcher: a function that can fail takes a `struct error *` last, returns
 * -1 (or NULL) and fills it in exactly once, where the failure is detected. module.c makes a Python exception of it.
 */
#ifndef SHIFTER_MERGER_ERROR_H
#define SHIFTER_MERGER_ERROR_H

#include <stddef.h>
#include <stdint.h>

enum error_kind {
    ERROR_NONE,
    ERROR_SYSTEM,    /* a system call failed; errnum says why */
    ERROR_MEMORY,    /* allocation failed */
    ERROR_DAMAGED,   /* an archive is not what a squashfs must be */
    ERROR_ENTRY,     /* an entry of a layer cannot be applied; entry names it */
    ERROR_CANCELLED, /* the caller's check said stop; its exception is set */
};

enum { ERROR_NO_ARCHIVE = -1, ERROR_PATH_MAX = 4096 };

struct error {
    enum error_kind kind;
    int errnum;
    int archive;                /* index of the archive at fault, or ERROR_NO_ARCHIVE for the destination */
    size_t entry_length;        /* bytes of entry; only for ERROR_ENTRY */
    char entry[ERROR_PATH_MAX]; /* raw bytes, shortened if longer */
    char text[256];             /* one line without the object, which the caller knows */
};

int error_system(struct error *e, int errnum, const char *what);
int error_memory(struct error *e);
int error_damaged(struct error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
int error_entry(struct error *e, const char *path, size_t length, const char *reason);

/* The error of a libsquashfs call (a negative SQFS_ERROR); `file_errno` is what the file's callback left, or 0. */
int error_library(struct error *e, int code, int file_errno, const char *what);

/* How the caller stops a long merge: `check` is called now and then and returns nonzero to stop it. It takes the
 * interpreter's lock, so it is not called for every step; a step is some ten to hundred nanoseconds. */
struct control {
    int (*check)(void *context);
    void *context;
    uint64_t steps; /* since the last check */
};

enum { CONTROL_INTERVAL = 1 << 15 /* steps; a few milliseconds */ };

int control_check(struct control *control, struct error *e);

/* Counts steps and checks when enough have come together. Every loop that an archive makes long calls it. */
static inline int control_step(struct control *control, uint64_t steps, struct error *e)
{
    control->steps += steps;
    return control->steps < CONTROL_INTERVAL ? 0 : control_check(control, e);
}

#endif
