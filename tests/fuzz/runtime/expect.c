/* SPDX-License-Identifier: BSD-3-Clause */
#include "expect.h"

#include <ctype.h>
#include <stdlib.h>

char *text_of(const uint8_t *data, size_t size)
{
    size_t length = size > 0 ? strnlen((const char *)data, size) : 0;
    char *text = malloc(length + 1);
    if (text == NULL)
        bug("no memory");
    memcpy(text, data, length);
    text[length] = '\0';
    return text;
}

struct strings texts_of(const uint8_t *data, size_t size, size_t most)
{
    struct strings texts = {0};
    for (const uint8_t *end = data + size; texts.count < most; data++) {
        const uint8_t *stop = data < end ? memchr(data, 0, (size_t)(end - data)) : NULL;
        if (stop == NULL || texts.count + 1 == most)
            stop = end;
        strings_take(&texts, text_of(data, (size_t)(stop - data)));
        data = stop;
        if (stop == end)
            break;
    }
    return texts;
}

struct error error_untouched(void)
{
    struct error e;
    memset(&e, 0x01, sizeof e);
    return e;
}

void expect_printable(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0'; c++)
        if (iscntrl(*c) || (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f))
            bug("a message has the control character %#x", *c);
}

void expect_message(const struct error *e)
{
    size_t length = strnlen(e->text, sizeof e->text);
    if (length == 0 || length == sizeof e->text)
        bug("a message of %zu bytes", length);
    expect_printable(e->text);
}

void expect_nothing(const void *out, size_t size, const char *what)
{
    const char *bytes = out;
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != 0)
            bug("%s was refused, and still holds something at byte %zu", what, i);
}

void expect_equal(const char *found, const char *expected, const char *what)
{
    if (found == NULL ? expected != NULL : expected == NULL || strcmp(found, expected) != 0)
        bug("%s is '%s' and not '%s'", what, found != NULL ? found : "(nothing)",
            expected != NULL ? expected : "(nothing)");
}

void expect_equal_lists(const struct strings *found, const struct strings *expected, const char *what)
{
    if (found->count != expected->count)
        bug("%s has %zu items and not %zu", what, found->count, expected->count);
    for (size_t i = 0; i < found->count; i++)
        expect_equal(found->items[i], expected->items[i], what);
}

void expect_clean_path(const char *path, const char *what)
{
    if (path[0] != '/')
        bug("%s is not absolute: '%s'", what, path);
    if (path[1] == '\0')
        return;
    for (const char *c = path; *c != '\0'; c++) {
        if (*c != '/')
            continue;
        size_t length = strcspn(c + 1, "/");
        if (length == 0 || (length == 1 && c[1] == '.') || (length == 2 && c[1] == '.' && c[2] == '.'))
            bug("%s is not clean: '%s'", what, path);
    }
}

bool volume_equal(const struct volume *a, const struct volume *b)
{
    if (strcmp(a->from, b->from) != 0 || strcmp(a->to, b->to) != 0 || a->flags != b->flags)
        return false;
    return (a->flags & VOLUME_PER_NODE_CACHE) == 0 ||
           (a->cache_size == b->cache_size && a->cache_block == b->cache_block);
}

/* The rules of the contract, sections 8.2 and 8.3 and W-7, in other words than the parser's. */
static bool is_forbidden(const char *to, enum volume_origin origin)
{
    static const char *const of_users[] = {"etc", "var", "dev", "proc", "sys"};
    static const char *const of_site[] = {"/", "/opt", "/etc", "/var", "/etc/passwd", "/etc/group",
                                          "/etc/nsswitch.conf"};
    if (origin == VOLUME_OF_SITE) {
        for (size_t i = 0; i < sizeof of_site / sizeof *of_site; i++)
            if (strcmp(to, of_site[i]) == 0)
                return true;
        return false;
    }
    size_t first = strcspn(to + 1, "/");
    for (size_t i = 0; i < sizeof of_users / sizeof *of_users; i++)
        if (strlen(of_users[i]) == first && strncmp(to + 1, of_users[i], first) == 0)
            return strcmp(to, "/var/tmp") != 0;
    return first == 0 || strcmp(to, "/opt") == 0 || strcmp(to, "/tmp") == 0 ||
           (strncmp(to, "/opt/udiImage", 13) == 0 && (to[13] == '\0' || to[13] == '/'));
}

void expect_volumes(const struct volumes *volumes, enum volume_origin origin)
{
    if (volumes->count > 1000)
        bug("%zu volume maps", volumes->count);
    for (size_t i = 0; i < volumes->count; i++) {
        const struct volume *v = &volumes->items[i];
        expect_clean_path(v->from, "a volume's source");
        expect_clean_path(v->to, "a volume's target");
        for (const char *c = v->to; *c != '\0'; c++)
            if (iscntrl((unsigned char)*c))
                bug("a control character in a volume's target");
        if (is_forbidden(v->to, origin))
            bug("a volume at %s", v->to);
        if (origin == VOLUME_OF_USER && (v->flags & (VOLUME_REC | VOLUME_SLAVE | VOLUME_PRIVATE)) != 0)
            bug("a user's volume has flags of the site: %#x", v->flags);
        if (origin == VOLUME_OF_USER && v->from[1] == '\0')
            bug("a user's volume shows the whole container");
        if ((v->flags & VOLUME_SLAVE) != 0 && (v->flags & VOLUME_PRIVATE) != 0)
            bug("a volume is slave and private");
        if ((v->flags & VOLUME_PER_NODE_CACHE) != 0 && (v->cache_size == 0 || v->cache_block == 0))
            bug("a cache of no size");
    }
}
