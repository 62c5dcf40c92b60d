/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/explain.h"

#include <stdio.h>
#include <string.h>

#include "as_user/environ.h"
#include "as_user/modules.h"

int explain_write(const struct explanation *told, int fd)
{
    const struct plan_subject *s = told->subject;
    (void)dprintf(fd, "image%1$c%2$s%1$crequest%1$c%3$s%1$cuser%1$c%4$s%1$cmodules%1$c%5$s%1$cworkdir%1$c%6$s%1$c", 0,
                  s->image->id, told->request != NULL ? told->request : "", s->account->name, s->modules->names,
                  told->workdir != NULL ? told->workdir : "/");
    (void)dprintf(fd, "prepared%1$c%2$s%1$cshell%1$c%3$s%1$c", 0, told->prepared ? "yes" : "no",
                  told->command->shell != NULL ? told->command->shell : "");
    for (size_t i = 0; i < told->command->words.count; i++)
        (void)dprintf(fd, "word%1$c%2$s%1$c", 0, told->command->words.items[i]);
    plan_explain(told->plan, fd);
    for (size_t i = 0; i < s->modules->count; i++)
        if (s->modules->items[i]->user_hook != NULL)
            (void)dprintf(fd, "userhook%1$c%2$s%1$c", 0, s->modules->items[i]->user_hook);
    for (size_t i = 0; i < told->environ->count; i++) {
        const char *item = told->environ->items[i];
        CLEANUP_FREE char *name = text_copy_n(item, strcspn(item, "="));
        const char *origin = environ_get(told->origins, name);
        (void)dprintf(fd, "variable%1$c%2$s%1$c%3$s%1$c", 0, item, origin != NULL ? origin : "caller");
    }
    /* What could not be written before is missed by the reader, who expects this. */
    return dprintf(fd, "end%c", 0) < 0 ? -1 : 0;
}
