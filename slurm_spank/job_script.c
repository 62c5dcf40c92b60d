/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Who the job belongs to is slurmd's word, through SPANK. Variables named SPANK_* are the user's word: the image id, of
 * which anything but 64 hex digits or an absolute path is refused, and modules and volumes, which setupRoot reads as
 * hostile, are the only ones that are looked at (sec-30, W-15). slurmctld is not asked (W-4).
 */
#include "job_script.h"

#include <errno.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "as_root/run.h"
#include "base/error.h"
#include "base/text.h"
#include "hosts.h"
#include "image_id.h"
#include "options.h"

#ifndef SETUP_SECONDS /* tests do not wait so long */
#define SETUP_SECONDS 60
#endif

enum { HOLDER_SIZE = 160, NUMBER_SIZE = 16 };

/* Account name of `uid`; NULL with an error when the node does not know him. free(3) the result. */
static char *account_name(uid_t uid, struct error *e)
{
    struct passwd entry, *found = NULL;
    char *name = NULL;
    int failure = ERANGE;
    for (size_t size = 4096; failure == ERANGE && size <= 1 << 20; size *= 4) {
        CLEANUP_FREE char *buffer = malloc(size);
        failure = buffer == NULL ? ENOMEM : getpwuid_r(uid, &entry, buffer, size, &found);
        if (found != NULL && (name = strdup(entry.pw_name)) == NULL)
            failure = ENOMEM;
    }
    if (name == NULL)
        (void)error_set(e, failure, "this node knows no account with uid %u", (unsigned)uid);
    return name;
}

/* "<job id>@<node>": as `shifter` in a task makes it from SLURM_JOB_ID and SLURMD_NODENAME (docs/adr/0002). */
static int make_holder(spank_t spank, char holder[HOLDER_SIZE], struct error *e)
{
    uint32_t job = 0;
    const char *node = getenv("SLURMD_NODENAME");
    spank_err_t failure = spank_get_item(spank, S_JOB_ID, &job);
    if (failure != ESPANK_SUCCESS)
        return error_set(e, 0, "Slurm does not tell the job's id: %s", spank_strerror(failure));
    if (node == NULL || snprintf(holder, HOLDER_SIZE, "%u@%s", job, node) >= HOLDER_SIZE)
        return error_set(e, 0, "slurmd gives no usable node name in SLURMD_NODENAME");
    return 0;
}

/* The id, or the path of a local: image, that the submit side put into the job; NULL with an error for anything
 * else. */
static const char *job_image(const char **type, struct error *e)
{
    const char *id = getenv("SPANK_SHIFTER_IMAGE");
    *type = getenv("SPANK_SHIFTER_IMAGETYPE");
    if (*type != NULL && id != NULL && strcmp(*type, "id") == 0 && image_id_is_valid(id))
        return id;
    if (*type != NULL && id != NULL && strcmp(*type, "local") == 0 && options_may_be_path(id))
        return id;
    (void)error_set(e, 0, "the job asks for an image but carries no image id; is the plug-in missing where it was "
                          "submitted?");
    return NULL;
}

/* NULL where no sshd is wanted, or none can be: a job from a submit host whose plugstack.conf lacks the word. Secrets
 * look like image ids. */
static const char *job_secret(void)
{
    const char *text = getenv("SPANK_SHIFTER_SSH_SECRET");
    if (!options_sshd_is_enabled())
        return NULL;
    if (text != NULL && image_id_is_valid(text))
        return text;
    slurm_error("shifter: the job brings no secret for an sshd; is enable_sshd=1 missing where it was submitted?");
    return NULL;
}

/* NULL, for the site's default modules, where the job names none, or names what cannot be a list. */
static const char *job_modules(void)
{
    const char *text = getenv("SPANK_SHIFTER_MODULE");
    return text != NULL && options_may_be_modules(text) ? text : NULL;
}

static const char *job_volumes(void)
{
    const char *text = getenv("SPANK_SHIFTER_VOLUME");
    return text != NULL && options_may_be_volumes(text) ? text : NULL;
}

/* NULL where slurmd does not name the nodes, or in no way that we understand: the container then has no list. */
static char *job_hosts(void)
{
    const char *nodes = getenv("SLURM_JOB_NODELIST"), *cpus = getenv("SLURM_JOB_CPUS_PER_NODE");
    struct error e;
    if (nodes == NULL)
        nodes = getenv("SLURM_NODELIST"); /* the name in prologs up to Slurm 22.05 */
    if (nodes == NULL)
        return NULL;
    char *hosts = hosts_from_slurm(nodes, cpus, &e);
    if (hosts == NULL)
        slurm_error("shifter: %s; the container gets no /var/hostsfile", e.text);
    return hosts;
}

static int set_up(spank_t spank, const char *holder, struct error *e)
{
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;
    char uid_text[NUMBER_SIZE], gid_text[NUMBER_SIZE];
    const char *type, *id = job_image(&type, e);
    if (id == NULL)
        return -1;
    spank_err_t failure = spank_get_item(spank, S_JOB_UID, &uid);
    if (failure == ESPANK_SUCCESS)
        failure = spank_get_item(spank, S_JOB_GID, &gid);
    if (failure != ESPANK_SUCCESS)
        return error_set(e, 0, "Slurm does not tell the job's user: %s", spank_strerror(failure));
    CLEANUP_FREE char *user = account_name(uid, e);
    if (user == NULL)
        return -1;
    (void)snprintf(uid_text, sizeof uid_text, "%u", (unsigned)uid);
    (void)snprintf(gid_text, sizeof gid_text, "%u", (unsigned)gid);
    CLEANUP_FREE char *hosts = job_hosts();
    const char *modules = job_modules(), *volumes = job_volumes(), *secret = job_secret();
    const char *arguments[20] = {PREFIX "/sbin/setupRoot", "-u", user, "-U", uid_text, "-G", gid_text, "-J", holder,
                                 "-N", "@-"};
    const char **next = arguments + 11; /* options come before the image */
    if (modules != NULL)
        *next++ = "-m", *next++ = modules;
    if (volumes != NULL)
        *next++ = "-v", *next++ = volumes;
    if (secret != NULL)
        *next++ = "-s", *next++ = "@-";
    *next++ = type, *next++ = id;
    CLEANUP_FREE char *both = secret == NULL ? NULL : text_format("%s\n%s\n", hosts != NULL ? hosts : "", secret);
    struct run run = {.arguments = arguments, .input = both != NULL ? both : hosts, .seconds = SETUP_SECONDS};
    return run_program(&run, e);
}

static int tear_down(const char *holder, struct error *e)
{
    const char *const arguments[] = {PREFIX "/sbin/unsetupRoot", "-J", holder, NULL};
    struct run run = {.arguments = arguments, .seconds = SETUP_SECONDS};
    return run_program(&run, e);
}

void job_prolog(spank_t spank)
{
    char holder[HOLDER_SIZE] = "job";
    struct error e;
    if (!options_image_was_given(spank))
        return;
    if (make_holder(spank, holder, &e) < 0 || set_up(spank, holder, &e) < 0)
        slurm_error("shifter: %s: no container prepared, each shifter of the job makes its own: %s", holder, e.text);
}

void job_epilog(spank_t spank)
{
    char holder[HOLDER_SIZE] = "job";
    struct error e;
    if (!options_image_was_given(spank))
        return;
    if (make_holder(spank, holder, &e) < 0 || tear_down(holder, &e) < 0)
        slurm_error("shifter: %s: the prepared container could not be removed: %s", holder, e.text);
}
