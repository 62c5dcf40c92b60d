/* SPDX-License-Identifier: BSD-3-Clause
 *
 * shifter --explain: what a start would do, as a stream of records for `udiroot explain`, which makes text or JSON of
 * it.
 */
#ifndef SHIFTER_EXPLAIN_H
#define SHIFTER_EXPLAIN_H

#include <stdbool.h>

#include "as_user/command.h"
#include "as_user/plan.h"
#include "base/text.h"

struct explanation {
    const struct plan_subject *subject;
    const struct plan *plan;
    bool prepared;                 /* the node has such a container: it would be entered */
    const char *request, *workdir; /* may be NULL */
    const struct command *command;
    const struct strings *environ, *origins;
};

/* A record is its name and a fixed number of fields, each ending with a NUL (udiroot/explain.py); -1 with errno. */
int explain_write(const struct explanation *told, int fd);

#endif
