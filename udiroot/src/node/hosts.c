/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/hosts.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

enum { MOST_TASKS = 65536, FILE_LIMIT = 64 << 20 }; /* on one node; bytes, which is more than 50000 nodes */

static const char host_characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

/* Digits and nothing else, as strtoul takes blanks and signs too; 0 when that is not so or it is too many. */
static size_t parse_count(const char *text)
{
    size_t count = 0;
    for (; *text >= '0' && *text <= '9' && count <= MOST_TASKS; text++)
        count = 10 * count + (size_t)(*text - '0');
    return *text == '\0' && count <= MOST_TASKS ? count : 0;
}

/* Takes the next item off the list: 1, 0 at its end, -1 when it is no item. */
static int next_item(const char **list, size_t *length, size_t *count, struct error *e)
{
    *list += strspn(*list, " ");
    if (**list == '\0')
        return 0;
    CLEANUP_FREE char *item = text_copy_n(*list, strcspn(*list, " "));
    *length = strspn(item, host_characters);
    *count = *length > 0 && item[*length] == '/' ? parse_count(item + *length + 1) : 0;
    if (*count == 0)
        return error_set(e, 0, "-N: '%.200s' is not HOST/COUNT with a count from 1 to %d", item, MOST_TASKS);
    return 1;
}

int hosts_expand(const char *text, char **out, struct error *e)
{
    size_t size = 0, length, count;
    const char *list;
    int result;
    for (list = text; (result = next_item(&list, &length, &count, e)) > 0; list += strcspn(list, " "))
        if ((size += count * (length + 1)) > FILE_LIMIT)
            return error_set(e, 0, "-N: /var/hostsfile would have more than %d bytes; name fewer nodes", FILE_LIMIT);
    if (result < 0)
        return -1;
    char *to = *out = text_alloc(size + 1);
    for (list = text; next_item(&list, &length, &count, e) > 0; list += strcspn(list, " "))
        for (; count > 0; count--)
            to += sprintf(to, "%.*s\n", (int)length, list);
    return 0;
}
