/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Error convention of the whole C side, on one page.
 *
 * A function that can fail takes a `struct error *` as its last parameter and returns 0 (or a descriptor/pointer) on
 * success and -1 (or NULL) on failure, with the error filled in exactly once, where the failure is detected. Callers
 * pass it up unchanged; only the short mains print it, on standard error, and turn it into an exit status.
 * A message names what failed, the object, why (errno text when there is one) and the next step.
 * Memory exhaustion is not an error value: the allocators of text.h print one line and _exit(EXIT_SHIFTER).
 */
#ifndef SHIFTER_ERROR_H
#define SHIFTER_ERROR_H

/* Exit statuses of `shifter`, the same as other container tools use, so that they cannot be taken for the command's. */
enum {
    EXIT_SHIFTER = 125,        /* any failure of shifter itself before the command was executed, usage errors too */
    EXIT_NOT_EXECUTABLE = 126, /* the command was found but could not be executed */
    EXIT_NOT_FOUND = 127       /* the command was not found in the container */
};

struct error {
    char text[2048]; /* one line, no newline, control characters of user-supplied names escaped */
};

/* Fills `e`; errnum > 0 appends ": " and its text. Always returns -1, so that `return error_set(...)` reads well. */
int error_set(struct error *e, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
