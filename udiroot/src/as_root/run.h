/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Runs one program to its end: no shell, a constant environment, nothing inherited but the ids, and a deadline.
 */
#ifndef SHIFTER_RUN_H
#define SHIFTER_RUN_H

#include <stddef.h>

#include "base/error.h"

enum { RUN_KEPT = 1024 }; /* bytes of each output stream that are kept; the rest is read and dropped */

struct run_place { /* for a program of root's that the process of a user starts */
    int program;   /* descriptor of what is executed in place of arguments[0] */
    int directory; /* descriptor of the directory it starts in */
    int input;     /* when above 0, what becomes standard input and so stays open as long as the program runs */
};

struct run {
    const char *const *arguments; /* NULL-terminated; the first is an absolute path */
    const char *input;            /* what the program reads on standard input; NULL: /dev/null */
    unsigned seconds;             /* then it is killed, with what it started */
    const struct run_place *place; /* all ids and limits become root's; NULL: ids are kept, the directory is "/" */
    /* In the new process: becomes somebody else for good, and closes all descriptors from 3 on but `kept`, or does not
     * return. Standard error is then ours. May be NULL. */
    void (*become)(const void *who, int kept);
    const void *who;
    size_t output_limit; /* bytes of standard output, with more it is killed; 0: any number */
    char output[RUN_KEPT + 1], errors[RUN_KEPT + 1]; /* filled: the beginnings, NUL-terminated */
    size_t output_length, errors_length;             /* filled: whole lengths */
};

/* 0 when the program exited with 0; otherwise the error holds what it said on standard error, or how it ended. */
int run_program(struct run *run, struct error *e);

#endif
