/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What a container with an sshd holds for it: configuration and keys, as files of the plan (docs/sshd.md). Text only;
 * the process is sshd.h's.
 */
#ifndef SHIFTER_SSHD_FILES_H
#define SHIFTER_SSHD_FILES_H

#include "as_user/plan.h"

#define SSHD_DIRECTORY "/var/shifterSsh"
#define SSHD_CONFIG SSHD_DIRECTORY "/sshd_config"
#define SSHD_PASSWD SSHD_DIRECTORY "/passwd" /* takes the place of /etc/passwd where the image lacks the user's shell */

enum { SSHD_FILES = 11 };

struct sshd_files {
    struct plan_file files[SSHD_FILES]; /* the last one has no path */
    char *identity;                     /* differs between jobs: an environment with an sshd is one job's on one node */
};

/* `secret` is the job's, `holder` the environment's: what comes before an "@" in it names the job. The image's,
 * modules' and site's variables become those of sessions. */
int sshd_files_make(const struct plan_subject *subject, const char *secret, const char *holder, struct sshd_files *out,
                    struct error *e);

#endif
