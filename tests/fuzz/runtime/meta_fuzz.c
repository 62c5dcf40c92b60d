/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Metadata of images: what is accepted is read back from how a gateway would write it, and no value hides the line that
 * restricts an image.
 *
 * Input: a .meta file.
 */
#include <stdio.h>

#include "as_user/image.h"
#include "expect.h"

enum { MOST_IDS = 1000 };

struct writer {
    char *text;
    size_t used, room;
};

static void put(struct writer *w, const char *text)
{
    size_t length = strlen(text);
    if (w->used + length + 1 > w->room)
        w->text = text_grow(w->text, w->room = 2 * (w->used + length + 1), 1);
    memcpy(w->text + w->used, text, length + 1);
    w->used += length;
}

static void put_line(struct writer *w, const char *key, const char *value)
{
    put(w, key);
    put(w, ":");
    put(w, value);
    put(w, "\n");
}

/* A JSON list; a byte that may be no UTF-8 as a lone surrogate. */
static void put_list(struct writer *w, const char *key, const struct strings *list)
{
    if (list->count == 0)
        return;
    put(w, key);
    for (size_t i = 0; i < list->count; i++) {
        put(w, i == 0 ? ":[\"" : ", \"");
        for (const unsigned char *c = (const unsigned char *)list->items[i]; *c != '\0'; c++) {
            char code[8];
            bool plain = *c >= ' ' && *c < 0x7f && *c != '"' && *c != '\\';
            (void)snprintf(code, sizeof code, plain ? "%c" : *c >= 0x80 ? "\\udc%02x" : "\\u00%02X", *c);
            put(w, code);
        }
        put(w, "\"");
    }
    put(w, "]\n");
}

static void put_ids(struct writer *w, const char *key, const unsigned *ids, size_t count)
{
    if (count == 0)
        return;
    put(w, key);
    for (size_t i = 0; i < count; i++) {
        char number[16];
        (void)snprintf(number, sizeof number, "%c%u", i == 0 ? ':' : ',', ids[i]);
        put(w, number);
    }
    put(w, "\n");
}

static char *write_out(const struct image_meta *m)
{
    struct writer w = {0};
    put_line(&w, "FORMAT", m->format);
    put_list(&w, "ENTRY", &m->entry);
    put_list(&w, "CMD", &m->cmd);
    if (m->workdir != NULL)
        put_line(&w, "WORKDIR", m->workdir);
    if (m->restricted)
        put_line(&w, "PRIVATE", "1");
    put_ids(&w, "USERACL", m->user_acl, m->user_acl_count);
    put_ids(&w, "GROUPACL", m->group_acl, m->group_acl_count);
    for (size_t i = 0; i < m->environ.count; i++)
        put_line(&w, "ENV", m->environ.items[i]);
    return w.text;
}

static void expect_same(const struct image_meta *found, const struct image_meta *expected)
{
    expect_equal(found->format, expected->format, "FORMAT");
    expect_equal(found->workdir, expected->workdir, "WORKDIR");
    expect_equal_lists(&found->entry, &expected->entry, "ENTRY");
    expect_equal_lists(&found->cmd, &expected->cmd, "CMD");
    expect_equal_lists(&found->environ, &expected->environ, "ENV");
    if (found->restricted != expected->restricted || found->user_acl_count != expected->user_acl_count ||
        found->group_acl_count != expected->group_acl_count)
        bug("another restriction");
    for (size_t i = 0; i < found->user_acl_count; i++)
        if (found->user_acl[i] != expected->user_acl[i])
            bug("USERACL has %u and not %u", found->user_acl[i], expected->user_acl[i]);
    for (size_t i = 0; i < found->group_acl_count; i++)
        if (found->group_acl[i] != expected->group_acl[i])
            bug("GROUPACL has %u and not %u", found->group_acl[i], expected->group_acl[i]);
}

static bool has_id(const unsigned *ids, size_t count, unsigned id)
{
    for (size_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static void check_access(const struct image_meta *m)
{
    struct error e = error_untouched();
    const gid_t groups[] = {7, 100};
    bool allowed = image_check_acl(m, 1000, 7, groups, 2, &e) == 0;
    if (allowed != (!m->restricted || has_id(m->user_acl, m->user_acl_count, 1000) ||
                    has_id(m->group_acl, m->group_acl_count, 7) || has_id(m->group_acl, m->group_acl_count, 100)))
        bug("access was %s", allowed ? "given" : "denied");
    if (!allowed)
        expect_message(&e);
    if (m->user_acl_count > MOST_IDS || m->group_acl_count > MOST_IDS)
        bug("more ids than there may be");
    if (!m->restricted && (m->user_acl_count > 0 || m->group_acl_count > 0))
        bug("an image with a list of ids is public");
    if (has_id(m->user_acl, m->user_acl_count, (unsigned)-1) || has_id(m->group_acl, m->group_acl_count, (unsigned)-1))
        bug("nobody's id is in a list");
}

/* The line that makes an image private does so in whatever place of the file it is. */
static void check_private(const char *text, size_t length)
{
    static const char line[] = "PRIVATE:1\n";
    enum { LENGTH = sizeof line - 1, MOST_PLACES = 24 };
    CLEANUP_FREE char *longer = malloc(length + LENGTH);
    if (longer == NULL)
        bug("no memory");
    unsigned places = 0;
    for (size_t at = 0; at < length && places < MOST_PLACES; at++) {
        if (at > 0 && text[at - 1] != '\n')
            continue;
        struct image_meta meta;
        struct error e;
        memcpy(longer, text, at);
        memcpy(longer + at, line, LENGTH);
        memcpy(longer + at + LENGTH, text + at, length - at);
        if (image_meta_parse(longer, length + LENGTH, "0123abcd", &meta, &e) < 0)
            return; /* there is one already */
        if (!meta.restricted)
            bug("a private image is public; the line is behind byte %zu", at);
        image_meta_free(&meta);
        places++;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image_meta meta, again;
    struct error e = error_untouched();
    memset(&meta, 0, sizeof meta);
    if (image_meta_parse((const char *)data, size, "0123abcd", &meta, &e) < 0) {
        expect_message(&e);
        if (strstr(e.text, "image 0123abcd") == NULL)
            bug("a message does not name the image: %s", e.text);
        expect_nothing(&meta, sizeof meta, "metadata");
        return 0;
    }
    expect_equal(meta.name, "0123abcd", "the name");
    check_access(&meta);
    if (!meta.restricted)
        check_private((const char *)data, size);
    CLEANUP_FREE char *written = write_out(&meta);
    if (image_meta_parse(written, strlen(written), "0123abcd", &again, &e) < 0)
        bug("refused when written out: %s", e.text);
    expect_same(&again, &meta);
    image_meta_free(&again);
    image_meta_free(&meta);
    return 0;
}
