/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Prepared environments of this node (docs/adr/0002-prepared-environments.md). Each is a mount namespace pinned by a
 * bind mount of its nsfs file, next to the text of the plan it was built from and the list of those who hold it:
 *
 *     STATEDIR/<udiMount, "/" written as "%">/     a private tmpfs while there is any environment
 *         <uid>.<n>/builder  plan  hosts  ns  shown  sshd  ready  holders/<holder>
 *
 * `hosts` holds what sets jobs of one plan apart, `sshd` says which process watches the job's sshd, `shown` that the
 * tree is at udiMount. All of it is root's alone. An environment that is not `ready`, or whose `ns` is not an nsfs
 * mount, is debris of a crash or a reboot, unless a process has locked its `builder`.
 */
#ifndef SHIFTER_STATE_H
#define SHIFTER_STATE_H

#include <stdbool.h>

#include "as_user/config.h"
#include "base/error.h"
#include "base/text.h"

/* For `shifter`: the namespace of an environment of `uid` that was built from exactly this plan, preferring the one
 * that `holder` (may be NULL) holds; -1 when there is none that can be trusted. Takes no lock and changes nothing. */
int state_find(const struct config *config, uid_t uid, const char *plan_text, const char *holder);
/* Is nothing prepared on this node, so that state_find need not be waited for? Needs no rights. */
bool state_is_absent(void);

/* The texts of the plans of all environments of `uid`, or of those that `holder` holds. As trusted as state_find. */
void state_plans(const struct config *config, uid_t uid, const char *holder, struct strings *out);

enum { HOLDER_LENGTH = 128 };
extern const char state_default_holder[]; /* of setupRoot without -J */

/* 1 to 128 characters of [A-Za-z0-9_.@-], the first neither "." nor "-". */
int state_check_holder(const char *holder, struct error *e);

/* What both sides read. Descriptors are -1 with errno on failure. */
char *state_path(const struct config *config);
/* A directory that only root can have filled: reached through no symbolic link, root's, mode 0700. */
int state_open_trusted(const char *path);
int state_open_environment(int directory, const char *name);
/* The namespace an environment pins, or -1; errno is ENOENT when it is not, or no longer, pinned. */
int state_open_namespace(int environment);
/* Not faccessat(2), which asks for the real uid: the caller's. */
bool state_has(int directory, const char *name);
/* Does the file `name` hold exactly `text`? */
bool state_file_equals(int directory, const char *name, const char *text);
/* Names of the environments of `uid`, or of all entries with (uid_t)-1. */
int state_list(int directory, uid_t uid, struct strings *out, struct error *e);

#endif
