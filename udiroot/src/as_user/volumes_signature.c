/* SPDX-License-Identifier: BSD-3-Clause */
#include <inttypes.h>
#include <string.h>

#include "as_user/volumes.h"
#include "base/text.h"

/* What the grammar would read as something else gets its backslash back. */
static char *escape(const char *path)
{
    char *out = text_alloc(2 * strlen(path) + 1), *to = out;
    for (; *path != '\0'; path++) {
        if (strchr(":;\\\" ", *path) != NULL)
            *to++ = '\\';
        *to++ = *path;
    }
    return out;
}

static char *canonical(const struct volume *v)
{
    CLEANUP_FREE char *from = escape(v->from);
    CLEANUP_FREE char *to = escape(v->to);
    CLEANUP_FREE char *cache =
        (v->flags & VOLUME_PER_NODE_CACHE) == 0
            ? text_copy("")
            : text_format(":perNodeCache=size=%" PRIu64 ",bs=%" PRIu64 ",method=loop,fstype=xfs", v->cache_size,
                          v->cache_block);
    return text_format("%s:%s%s%s%s%s%s", from, to, (v->flags & VOLUME_RO) != 0 ? ":ro" : "",
                       (v->flags & VOLUME_REC) != 0 ? ":rec" : "", cache,
                       (v->flags & VOLUME_SLAVE) != 0 ? ":slave" : "",
                       (v->flags & VOLUME_PRIVATE) != 0 ? ":private" : "");
}

/* Asked of every pair of a thousand clean paths: most differ before a component has to be looked for. */
static bool overlap(const char *a, const char *b)
{
    size_t same = 0;
    while (a[same] != '\0' && a[same] == b[same])
        same++;
    return (a[same] == '\0' || b[same] == '\0') && (path_is_below(a, b) || path_is_below(b, a));
}

/* Does it matter which of the two is mounted first: does one cover the other, or show what the other put there? */
static bool depend(const struct volume *a, const struct volume *b)
{
    return overlap(a->to, b->to) || overlap(a->to, b->from) || overlap(a->from, b->to);
}

struct entry {
    char *text;
    const struct volume *volume; /* its place in the list is the order given */
};

static int compare(const void *a, const void *b)
{
    const struct entry *left = a, *right = b;
    int order = strcmp(left->text, right->text);
    return order != 0 ? order : (left->volume > right->volume) - (left->volume < right->volume);
}

static int compare_given(const void *a, const void *b)
{
    const struct entry *left = a, *right = b;
    return (left->volume > right->volume) - (left->volume < right->volume);
}

static bool swaps_dependent(const struct entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = i + 1; j < count; j++)
            if (entries[i].volume > entries[j].volume && depend(entries[i].volume, entries[j].volume))
                return true;
    return false;
}

char *volumes_signature(const struct volumes *v)
{
    CLEANUP_FREE struct entry *entries = text_alloc(v->count * sizeof *entries);
    for (size_t i = 0; i < v->count; i++)
        entries[i] = (struct entry){.text = canonical(&v->items[i]), .volume = &v->items[i]};
    qsort(entries, v->count, sizeof *entries, compare);
    if (swaps_dependent(entries, v->count))
        qsort(entries, v->count, sizeof *entries, compare_given);
    size_t length = 1;
    for (size_t i = 0; i < v->count; i++)
        length += strlen(entries[i].text) + 1;
    char *out = text_alloc(length), *to = out;
    for (size_t i = 0; i < v->count; i++) {
        if (i > 0)
            *to++ = ';';
        to = stpcpy(to, entries[i].text);
        free(entries[i].text);
    }
    return out;
}

