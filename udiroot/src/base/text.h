/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Strings, string lists and scope-bound clean-up. Nothing here does I/O; nothing here returns on exhausted memory.
 */
#ifndef SHIFTER_TEXT_H
#define SHIFTER_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

/* How exhausted memory ends the process: who says so (default: shifter), and the exit status. */
extern const char *text_program;
extern int text_failure;

void *text_alloc(size_t size);                   /* zeroed */
void *text_grow(void *array, size_t count, size_t item_size); /* realloc to count items, overflow checked */
char *text_copy(const char *s);
char *text_copy_n(const char *s, size_t n);
char *text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Blank, tab, line ends: the same in every locale. */
bool text_is_blank(char c);
char *text_trim(char *s); /* in place: cuts the blanks at the end, returns where those at the start end */
/* A byte size, spec section 4.3: a decimal number, then b, k, m, g, t, p or e for a power of 1024; letters after that
 * are ignored. Returns -1 for anything else and for what does not fit. */
int text_parse_size(const char *text, uint64_t *out);

struct strings { /* NULL-terminated at all times, so items can be handed to execve */
    char **items;
    size_t count;
};

void strings_add(struct strings *list, const char *s);      /* copies */
void strings_take(struct strings *list, char *owned);       /* takes over */
bool strings_contain(const struct strings *list, const char *s);
/* All of them, one after the other. */
char *strings_join(const struct strings *list);
void strings_free(struct strings *list);

/* "a/b" lies at or below "a" but "ab" does not: the one path comparison of the project, on components. Both absolute;
 * repeated slashes and trailing slashes are insignificant. No file system access. */
bool path_is_below(const char *path, const char *base);
/* A copy without "//", "/./" and trailing slashes; NULL when the path is not absolute or has a component "..". */
char *path_clean(const char *path);

static inline void cleanup_free_(void *p) { free(*(void **)p); }
static inline void cleanup_close_(const int *fd) { if (*fd >= 0) (void)close(*fd); }
#define CLEANUP_FREE __attribute__((cleanup(cleanup_free_)))
#define CLEANUP_CLOSE __attribute__((cleanup(cleanup_close_)))

#endif
