/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The list of setupRoot -N: refused, or a line for each task, in the order of the nodes; the lines written out as a list
 * again give the same.
 *
 * Input: the list.
 */
#include "expect.h"
#include "node/hosts.h"

enum { ENOUGH = 1 << 20 }; /* bytes of a file: longer ones are only slower */

static bool is_host(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

/* How many bytes the file must have, as a reader of the documentation would say; -1: the list must be refused. */
static long expected_size(const char *list)
{
    long size = 0;
    for (const char *c = list; *c != '\0';) {
        long name = 0, count = 0, digits = 0;
        if (*c == ' ') {
            c++;
            continue;
        }
        for (; is_host(*c); c++)
            name++;
        if (name == 0 || *c++ != '/')
            return -1;
        for (; *c >= '0' && *c <= '9'; c++, digits++)
            count = count > 65536 ? count : 10 * count + (*c - '0');
        if (digits == 0 || count < 1 || count > 65536 || (*c != ' ' && *c != '\0'))
            return -1;
        size += count * (name + 1);
    }
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *list = text_of(data, size);
    long expected = expected_size(list);
    if (expected > ENOUGH)
        return 0;
    struct error e = error_untouched();
    char *lines = NULL, *again = NULL;
    if (hosts_expand(list, &lines, &e) < 0) {
        expect_message(&e);
        if (expected >= 0 || lines != NULL)
            bug("refused, or refused with a file: %s", list);
        return 0;
    }
    if ((long)strlen(lines) != expected)
        bug("a file of %zu bytes, and not %ld", strlen(lines), expected);
    CLEANUP_FREE char *written = text_alloc(3 * strlen(lines) + 1);
    char *to = written;
    for (const char *c = lines; *c != '\0'; c++)
        to = *c == '\n' ? stpcpy(to, "/1 ") : (*to = *c, to + 1);
    if (hosts_expand(written, &again, &e) < 0)
        bug("its own lines are refused: %s", e.text);
    expect_equal(again, lines, "the lines written as a list");
    free(again);
    free(lines);
    return 0;
}
