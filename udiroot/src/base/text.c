/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

const char *text_program = "shifter";
int text_failure = EXIT_SHIFTER;

static void *must_have(void *memory)
{
    if (memory != NULL)
        return memory;
    (void)dprintf(STDERR_FILENO, "%s: out of memory\n", text_program);
    _exit(text_failure);
}

void *text_alloc(size_t size)
{
    return must_have(calloc(1, size > 0 ? size : 1));
}

void *text_grow(void *array, size_t count, size_t item_size)
{
    size_t size;
    if (__builtin_mul_overflow(count, item_size, &size))
        return must_have(NULL);
    return must_have(realloc(array, size > 0 ? size : 1));
}

char *text_copy(const char *s)
{
    return must_have(strdup(s));
}

char *text_copy_n(const char *s, size_t n)
{
    return must_have(strndup(s, n));
}

char *text_format(const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    return must_have(length < 0 ? NULL : text);
}

bool text_is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

char *text_trim(char *s)
{
    while (text_is_blank(*s))
        s++;
    size_t length = strlen(s);
    while (length > 0 && text_is_blank(s[length - 1]))
        length--;
    s[length] = '\0';
    return s;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* The power of two of the unit that starts at `text`, -1 when it is none. */
static int unit_shift(const char *text)
{
    static const char units[] = "bkmgtpe";
    if (*text == '\0')
        return 0;
    const char *unit = strchr(units, *text | 0x20); /* ASCII lower case */
    for (const char *c = text; *c != '\0'; c++)
        if (!is_letter(*c))
            return -1;
    return unit != NULL ? (int)(unit - units) * 10 : -1;
}

int text_parse_size(const char *text, uint64_t *out)
{
    uint64_t whole = 0;
    double fraction = 0, scale = 1;
    const char *c = text;
    for (; is_digit(*c); c++)
        if (__builtin_mul_overflow(whole, 10U, &whole) || __builtin_add_overflow(whole, (uint64_t)(*c - '0'), &whole))
            return -1;
    if (c == text)
        return -1;
    if (*c == '.')
        for (c++; is_digit(*c); c++)
            fraction += (*c - '0') * (scale /= 10);
    int shift = unit_shift(c);
    if (shift < 0 || whole > UINT64_MAX >> shift)
        return -1;
    uint64_t part = (uint64_t)(fraction * (double)((uint64_t)1 << shift));
    return __builtin_add_overflow(whole << shift, part, out) ? -1 : 0;
}

void strings_add(struct strings *list, const char *s)
{
    strings_take(list, text_copy(s));
}

void strings_take(struct strings *list, char *owned)
{
    /* Room is doubled, so that a long list costs no square of copies: a power of two is full. */
    if (list->count == 0)
        list->items = text_grow(list->items, 2, sizeof *list->items);
    else if ((list->count & (list->count + 1)) == 0)
        list->items = text_grow(list->items, 2 * (list->count + 1), sizeof *list->items);
    list->items[list->count++] = owned;
    list->items[list->count] = NULL;
}

bool strings_contain(const struct strings *list, const char *s)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i], s) == 0)
            return true;
    return false;
}

char *strings_join(const struct strings *list)
{
    size_t length = 0;
    for (size_t i = 0; i < list->count; i++)
        length += strlen(list->items[i]);
    char *text = text_alloc(length + 1), *end = text;
    for (size_t i = 0; i < list->count; i++)
        end = stpcpy(end, list->items[i]);
    return text;
}

void strings_free(struct strings *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct strings){0};
}

/* The next component of the path, its length in `length`; NULL at the end. */
static const char *component(const char *path, size_t *length)
{
    path += strspn(path, "/");
    *length = strcspn(path, "/");
    return *length > 0 ? path : NULL;
}

bool path_is_below(const char *path, const char *base)
{
    if (path[0] != '/' || base[0] != '/')
        return false;
    size_t wanted, found;
    while ((base = component(base, &wanted)) != NULL) {
        if ((path = component(path, &found)) == NULL || found != wanted || memcmp(path, base, wanted) != 0)
            return false;
        base += wanted;
        path += found;
    }
    return true;
}

char *path_clean(const char *path)
{
    if (path[0] != '/')
        return NULL;
    char *clean = text_alloc(strlen(path) + 1);
    size_t used = 0, length;
    for (; (path = component(path, &length)) != NULL; path += length) {
        if (length == 1 && path[0] == '.')
            continue;
        if (length == 2 && path[0] == '.' && path[1] == '.') {
            free(clean);
            return NULL;
        }
        clean[used++] = '/';
        memcpy(clean + used, path, length);
        used += length;
    }
    if (used == 0)
        clean[0] = '/';
    return clean;
}
