/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/lines.h"

#include <string.h>

#include "base/text.h"

static char no_remark_key[] = "";
static char indented_comment[] = "a comment is best started in the first column";
static char no_delimiter[] = "no key and value here: the line is ignored (is a backslash missing at the end of the one "
                             "before?)";
static char open_end[] = "the file ends in the middle of a continued value";

void lines_begin(struct lines *l, const char *text, size_t length, char delimiter, const char *const *starts)
{
    *l = (struct lines){.next = text, .end = text + length, .delimiter = delimiter, .starts = starts};
}

void lines_end(struct lines *l)
{
    free(l->buffer);
    *l = (struct lines){0};
}

/* The physical line at `next`, without its end; consumes it. */
static const char *take(struct lines *l, size_t *length)
{
    const char *line = l->next;
    const char *stop = memchr(line, '\n', (size_t)(l->end - line));
    *length = (size_t)((stop != NULL ? stop : l->end) - line);
    l->next = stop != NULL ? stop + 1 : l->end;
    l->number++;
    return line;
}

/* Where the text of a line starts. */
static size_t indent(const char *line, size_t length)
{
    size_t blanks = 0;
    while (blanks < length && text_is_blank(line[blanks]))
        blanks++;
    return blanks;
}

static bool starts_pair(const struct lines *l, const char *line, size_t length)
{
    for (const char *const *name = l->starts; name != NULL && *name != NULL; name++) {
        size_t n = strlen(*name);
        if (length > n && memcmp(line, *name, n) == 0 && line[n] == l->delimiter)
            return true;
    }
    return false;
}

/* A value that grows line by line; the buffer is the reader's. */
struct value {
    size_t used, room;
};

static void append(struct lines *l, struct value *v, const char *text, size_t length)
{
    if (v->used + length + 2 > v->room) {
        v->room = 2 * (v->used + length + 2);
        l->buffer = text_grow(l->buffer, v->room, 1);
    }
    memcpy(l->buffer + v->used, text, length);
    v->used += length;
    l->buffer[v->used] = '\0';
}

static void cut_blanks(struct lines *l, struct value *v)
{
    while (v->used > 0 && text_is_blank(l->buffer[v->used - 1]))
        v->used--;
    l->buffer[v->used] = '\0';
}

/* Passes over comments. The physical line that would continue a value stays unread; its length is 0 at the end. */
static const char *peek(struct lines *l, size_t *length, size_t *blanks)
{
    for (;;) {
        const struct lines before = *l;
        const char *line = take(l, length);
        *blanks = indent(line, *length);
        if (l->next == l->end || *blanks == *length || line[*blanks] != '#') {
            l->next = before.next;
            l->number = before.number;
            return line;
        }
    }
}

/* Joins the lines after a backslash with one blank between them. A blank line is the end. */
static void continue_value(struct lines *l, struct value *v)
{
    cut_blanks(l, v);
    while (v->used > 0 && l->buffer[v->used - 1] == '\\') {
        size_t length, blanks;
        const char *line = peek(l, &length, &blanks);
        if (l->starts != NULL && (blanks == length || starts_pair(l, line + blanks, length - blanks)))
            return; /* nothing goes on there: the backslash belongs to the value */
        l->buffer[--v->used] = '\0';
        cut_blanks(l, v);
        if (l->next == l->end)
            l->pending = true;
        (void)take(l, &length);
        if (blanks == length || line[blanks] == '#')
            return;
        if (v->used > 0)
            append(l, v, " ", 1);
        append(l, v, line + blanks, length - blanks);
        cut_blanks(l, v);
    }
}

static enum line_kind remark(char *what, unsigned number, struct line *out)
{
    *out = (struct line){.key = no_remark_key, .value = what, .number = number};
    return LINE_REMARK;
}

enum line_kind lines_next(struct lines *l, struct line *out)
{
    if (l->pending) {
        l->pending = false;
        return remark(open_end, l->number, out);
    }
    while (l->next < l->end) {
        size_t length;
        const char *line = take(l, &length);
        size_t blanks = indent(line, length);
        if (blanks == length || line[0] == '#')
            continue;
        if (line[blanks] == '#')
            return remark(indented_comment, l->number, out);
        const char *delimiter = memchr(line, l->delimiter, length);
        if (delimiter == NULL)
            return remark(no_delimiter, l->number, out);
        *out = (struct line){.number = l->number};
        struct value v = {0};
        append(l, &v, line, length);
        continue_value(l, &v);
        char *value = l->buffer + (delimiter - line);
        *value++ = '\0';
        out->key = text_trim(l->buffer);
        out->value = text_trim(value);
        return LINE_PAIR;
    }
    return LINE_END;
}
