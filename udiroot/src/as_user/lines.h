/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The line grammar that udiRoot.conf and .meta files share (spec: runtime contract, section 3.2): a key, a delimiter, a
 * value; '#' starts a comment; a backslash at the end of a value continues it on the next line.
 */
#ifndef SHIFTER_LINES_H
#define SHIFTER_LINES_H

#include <stdbool.h>
#include <stddef.h>

enum line_kind {
    LINE_END,
    LINE_PAIR,
    LINE_REMARK /* nothing to act upon, but something an author should know: `value` says what */
};

struct lines {
    const char *next, *end; /* text that was not read yet */
    char delimiter;
    /* NULL, or names ending in NULL: a line that starts with one of them and the delimiter never continues another,
     * and a backslash that nothing follows is part of the value. The gateways of old wrote such values and meant no
     * more. */
    const char *const *starts;
    unsigned number;      /* of the last line read, from 1 */
    bool pending;         /* the file ended in a continued value: said after the pair was handed out */
    char *buffer;
};

struct line {
    char *key, *value; /* trimmed; good until the next call */
    unsigned number;   /* where it starts */
};

/* The text must hold no NUL. `lines_end` releases what the reader holds. */
void lines_begin(struct lines *lines, const char *text, size_t length, char delimiter, const char *const *starts);
enum line_kind lines_next(struct lines *lines, struct line *out);
void lines_end(struct lines *lines);

#endif
