/* SPDX-License-Identifier: BSD-3-Clause */
#include "hosts.h"

#include <errno.h>
#include <slurm/slurm.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT_LIMIT = 65536, REPEAT_LIMIT = 1 << 20 };

struct counts { /* walks "4(x2),2": 4, 4, 2 */
    const char *next;
    unsigned long value, repeat;
};

/* The next node's count, 0 when there is none or the text is not of this form. */
static unsigned long next_count(struct counts *counts)
{
    char *end;
    if (counts->repeat == 0) {
        counts->value = strtoul(counts->next, &end, 10);
        counts->repeat = 1;
        if (end == counts->next)
            return 0;
        if (end[0] == '(' && end[1] == 'x') {
            counts->repeat = strtoul(end + 2, &end, 10);
            if (*end++ != ')')
                return 0;
        }
        if (*end == ',')
            end++;
        else if (*end != '\0')
            return 0;
        counts->next = end;
    }
    if (counts->repeat == 0 || counts->repeat > REPEAT_LIMIT || counts->value > COUNT_LIMIT)
        return 0;
    counts->repeat--;
    return counts->value;
}

static int write_hosts(FILE *out, const char *nodes, const char *cpus, struct error *e)
{
    struct counts counts = {.next = cpus};
    /* hostlist_t is a pointer before Slurm 23.11 and a structure from then on; this fits both. */
    __typeof__(slurm_hostlist_create(nodes)) list = slurm_hostlist_create(nodes);
    if (list == NULL)
        return error_set(e, errno, "cannot read the node list '%.200s'", nodes);
    bool fits = true, first = true;
    for (char *host; fits && (host = slurm_hostlist_shift(list)) != NULL; free(host)) {
        unsigned long count = cpus != NULL ? next_count(&counts) : 1;
        fits = count > 0 && fprintf(out, "%s%s/%lu", first ? "" : " ", host, count) > 0;
        first = false;
    }
    slurm_hostlist_destroy(list);
    if (fits && (cpus == NULL || (counts.repeat == 0 && *counts.next == '\0')))
        return 0;
    return error_set(e, 0, "the CPU counts '%.200s' do not fit the node list '%.200s'", cpus, nodes);
}

char *hosts_from_slurm(const char *nodes, const char *cpus, struct error *e)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL) {
        (void)error_set(e, errno, "cannot expand the node list");
        return NULL;
    }
    int result = write_hosts(out, nodes, cpus, e);
    if (fclose(out) != 0 && result == 0)
        result = error_set(e, errno, "cannot expand the node list");
    if (result == 0)
        return text;
    free(text);
    return NULL;
}
