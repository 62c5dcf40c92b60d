/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The container's /etc/group: every line is one of the site's without its members, and only the user's own groups name
 * him.
 *
 * Input: a digit, how many groups may name him (0: all); then the site's file.
 */
#include "as_root/etcfiles.h"
#include "expect.h"

static gid_t groups[] = {0, 5, 100, 4294967294U};
static const struct caller caller = {.uid = 1000, .gid = 7, .groups = groups, .group_count = 4};

static bool is_own(unsigned long gid)
{
    return gid == 5 || gid == 7 || gid == 100 || gid == 4294967294U;
}

/* name:x:GID: and perhaps the user; whether he is there. */
static bool check_line(char *line)
{
    char *fields[4], *next = line, *end;
    for (size_t i = 0; i < 4; i++)
        if ((fields[i] = strsep(&next, ":")) == NULL)
            bug("a line of %zu fields: %s", i, line);
    unsigned long gid = strtoul(fields[2], &end, 10);
    if (next != NULL || *fields[0] == '\0' || *fields[0] == '#' || strcmp(fields[1], "x") != 0 || *end != '\0' ||
        fields[2][0] < '0' || fields[2][0] > '9' || gid > UINT32_MAX)
        bug("a line %s:%s:%s:%s", fields[0], fields[1], fields[2], fields[3]);
    if (*fields[3] == '\0')
        return false;
    if (strcmp(fields[3], "user") != 0 || !is_own(gid))
        bug("group %lu names '%s'", gid, fields[3]);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    unsigned maximum = data[0] % 8, named = 0;
    CLEANUP_FREE char *text = text_of(data + 1, size - 1);
    CLEANUP_FREE char *filtered = etcfiles_filter_group(text, "user", &caller, maximum);
    CLEANUP_FREE char *again = etcfiles_filter_group(filtered, "user", &caller, maximum);
    expect_equal(again, filtered, "what was filtered before");
    if (*filtered != '\0' && filtered[strlen(filtered) - 1] != '\n')
        bug("the last line has no end");
    CLEANUP_FREE char *copy = text_copy(filtered);
    for (char *next = copy, *line; (line = strsep(&next, "\n")) != NULL && next != NULL;)
        named += check_line(line);
    if (maximum > 0 && named > maximum)
        bug("%u groups name the user, and not %u", named, maximum);
    return 0;
}
