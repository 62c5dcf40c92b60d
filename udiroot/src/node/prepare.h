/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Making and removing prepared environments, for setupRoot and unsetupRoot. What lies where is told in state.h.
 */
#ifndef SHIFTER_PREPARE_H
#define SHIFTER_PREPARE_H

#include <stdbool.h>

#include "as_user/config.h"
#include "as_user/plan.h"
#include "base/error.h"

struct prepare { /* the locked state of one udiMount; descriptors are -1 when it does not exist */
    const struct config *config;
    int proc; /* the host's procfs */
    int base, directory;
    char *path;
};

/* Opens and locks; makes the directories when `create`. Removes what crashed programs left. */
int prepare_open(const struct config *config, int proc, bool create, struct prepare *out, struct error *e);
/* Unlocks; removes the directories when no environment is left. */
void prepare_close(struct prepare *state);

/* Adds `holder` to the environment of this plan and job: 1 when there was one, 0 when there was none. One `with_sshd`
 * counts only while that runs. `*builder` is -1 before; when there is none but somebody builds it just now, it becomes
 * what environment_await takes, once the state is closed. With NULL nobody is waited for. */
int prepare_join(struct prepare *state, uid_t uid, const char *plan_text, const char *of_job, const char *holder,
                 bool with_sshd, int *builder, struct error *e);
/* Builds an environment and pins it, held by `holder`. Undone on failure. Returns in the host's namespace. The lock
 * is let go while a process builds and while sshd starts. `of_job` sets jobs of one plan apart: the host list as it
 * was given ("" for none), a hundredth of the file that it becomes, and whose the keys of its sshd are. */
int prepare_build(struct prepare *state, const struct plan *plan, const struct plan_subject *subject, int proc,
                  const char *of_job, const char *holder, bool with_sshd, struct error *e);
/* Takes `holder` (NULL: everybody) off every environment and removes those that nobody holds any more. Who builds one
 * sees it when he has finished, and removes it himself. */
int prepare_release(struct prepare *state, int proc, const char *holder, struct error *e);

#endif
