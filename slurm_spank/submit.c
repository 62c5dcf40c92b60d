/* SPDX-License-Identifier: BSD-3-Clause */
#include "submit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "as_root/run.h"
#include "as_user/caches.h"
#include "as_user/config.h"
#include "as_user/modules.h"
#include "image_id.h"
#include "options.h"

#ifndef LOOKUP_SECONDS /* tests do not wait so long */
#define LOOKUP_SECONDS 60
#endif

/* What the job is told, without and with the prefix that Slurm gives job-control variables in the job. */
static const char *const variables[] = {"SHIFTER_IMAGE", "SHIFTER_IMAGETYPE", "SHIFTER_IMAGEREQUEST"};
enum { VARIABLES = sizeof variables / sizeof variables[0], NAME_LIMIT = 64 };

static const char *in_job(const char *variable, char name[NAME_LIMIT])
{
    (void)snprintf(name, NAME_LIMIT, "SLURM_SPANK_%s", variable);
    return name;
}

/* The tag behind "TYPE:", or NULL when the text does not begin with that type. */
static const char *tag_of_type(const char *text, const char *type)
{
    size_t length = strlen(type);
    return strncmp(text, type, length) == 0 && text[length] == ':' ? text + length + 1 : NULL;
}

/* Section 6: the request goes without its type. */
static const char *request_of(const char *text)
{
    const char *docker = tag_of_type(text, "docker"), *custom = tag_of_type(text, "custom");
    return docker != NULL ? docker : custom != NULL ? custom : text;
}

/* The id that the enclosing job was given for the same text; NULL when there is none. A step must run what the job
 * runs, also when the tag has moved since, and without a question to the gateway (W-1). */
static const char *inherited_id(const char *text)
{
    char name[NAME_LIMIT];
    const char *asked = getenv(options_variable(OPTION_IMAGE));
    const char *type = getenv(in_job("SHIFTER_IMAGETYPE", name));
    const char *id = getenv(in_job("SHIFTER_IMAGE", name));
    bool same = getenv("SLURM_JOB_ID") != NULL && asked != NULL && strcmp(asked, text) == 0;
    return same && type != NULL && strcmp(type, "id") == 0 && id != NULL && image_id_is_valid(id) ? id : NULL;
}

/* The client reads udiRoot.conf and asks the gateway; its answer is one line with the id. */
static int look_up(const char *text, char id[IMAGE_ID_SIZE], struct error *e)
{
    const char *const arguments[] = {PREFIX "/bin/shifterimg", "lookup", text, NULL};
    struct run run = {.arguments = arguments, .seconds = LOOKUP_SECONDS};
    struct error cause;
    if (run_program(&run, &cause) < 0)
        return error_set(e, 0, "cannot find image %s: %s", text, cause.text);
    size_t length = strlen(run.output);
    if (length > 0 && run.output[length - 1] == '\n')
        run.output[--length] = '\0';
    if (length != run.output_length - 1 && length != run.output_length)
        run.output[0] = '\0'; /* longer than we keep, or with a NUL in it */
    if (!image_id_is_valid(run.output))
        return error_set(e, 0, "cannot find image %s: %s answered '%.80s' instead of an image id", text, arguments[0],
                         run.output);
    memcpy(id, run.output, IMAGE_ID_SIZE);
    return 0;
}

/* To the job through Slurm, to the step through srun's own environment, which it sends along: Slurm keeps job-control
 * variables of srun for the prolog alone. */
static int publish(spank_t spank, const char *variable, const char *value, struct error *e)
{
    char name[NAME_LIMIT];
    (void)in_job(variable, name);
    if (value == NULL) {
        (void)unsetenv(name); /* an enclosing job's */
        return 0;
    }
    spank_err_t failure = spank_job_control_setenv(spank, variable, value, 1);
    if (failure != ESPANK_SUCCESS)
        return error_set(e, 0, "Slurm does not take %s for the job: %s", variable, spank_strerror(failure));
    return setenv(name, value, 1) == 0 ? 0 : error_set(e, 0, "cannot set %s: out of memory", name);
}

/* For srun: what is started in the step inherits what this step asked for, not the job. */
static int hand_down(enum options_name name, const char *text, struct error *e)
{
    return setenv(options_variable(name), text, 1) == 0
               ? 0
               : error_set(e, 0, "cannot set %s: out of memory", options_variable(name));
}

/* What the job's nodes would refuse is refused here, before it waits in a queue. */
static int submit_modules(spank_t spank, bool local, struct error *e)
{
    const char *text = options_text(OPTION_MODULE);
    struct config config;
    struct modules modules;
    struct error cause;
    if (text == NULL)
        return 0;
    if (config_load(SYSCONFDIR "/udiRoot.conf", false, &config, e) < 0)
        return -1;
    int result = modules_choose(&config, text, &modules, &cause);
    if (result < 0)
        (void)error_set(e, 0, "--%s: %s", options_name(OPTION_MODULE), cause.text);
    else
        modules_release(&modules);
    config_free(&config);
    if (result < 0 || (local && hand_down(OPTION_MODULE, text, e) < 0))
        return -1;
    return publish(spank, "SHIFTER_MODULE", text, e);
}

/* Their grammar has been checked. Only who wants a cache needs the site's configuration here. */
static int check_caches(const char *text, struct error *e)
{
    struct strings texts = {0};
    struct volumes volumes = {0};
    struct config config;
    struct error cause;
    strings_add(&texts, text);
    int result = volumes_of_user(&texts, &volumes, e);
    bool caches = false;
    for (size_t i = 0; i < volumes.count; i++)
        caches = caches || (volumes.items[i].flags & VOLUME_PER_NODE_CACHE) != 0;
    if (result == 0 && caches && (result = config_load(SYSCONFDIR "/udiRoot.conf", false, &config, e)) == 0) {
        if (caches_check(&config, &volumes, VOLUME_OF_USER, &cause) < 0)
            result = error_set(e, 0, "--%s: %s", options_name(OPTION_VOLUME), cause.text);
        config_free(&config);
    }
    volumes_free(&volumes);
    strings_free(&texts);
    return result;
}

/* What they lead to is for the nodes to see. */
static int submit_volumes(spank_t spank, bool local, struct error *e)
{
    const char *text = options_text(OPTION_VOLUME);
    if (text == NULL)
        return 0;
    if (options_text(OPTION_IMAGE) == NULL)
        return error_set(e, 0, "--%s without --%s: name the image that the volumes are for",
                         options_name(OPTION_VOLUME), options_name(OPTION_IMAGE));
    if (check_caches(text, e) < 0 || (local && hand_down(OPTION_VOLUME, text, e) < 0))
        return -1;
    return publish(spank, "SHIFTER_VOLUME", text, e);
}

/* What the keys of the job's sshd are computed from on each of its nodes (docs/adr/0016-sshd.md). A step of a job has
 * what the prolog made of the job's. */
static int submit_secret(spank_t spank, bool local, struct error *e)
{
    unsigned char bytes[32];
    char text[2 * sizeof bytes + 1];
    if (!options_sshd_is_enabled() || (local && getenv("SLURM_JOB_ID") != NULL))
        return 0;
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return error_set(e, errno, "cannot get random bytes for the keys of the job's sshd");
    for (size_t i = 0; i < sizeof bytes; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    spank_err_t failure = spank_job_control_setenv(spank, "SHIFTER_SSH_SECRET", text, 1);
    return failure == ESPANK_SUCCESS ? 0 : error_set(e, 0, "Slurm does not take the secret of the job's sshd: %s",
                                                     spank_strerror(failure));
}

void submit_forget_secret(spank_t spank)
{
    char name[NAME_LIMIT];
    (void)spank_unsetenv(spank, in_job("SHIFTER_SSH_SECRET", name));
}

int submit(spank_t spank, bool local, struct error *e)
{
    const char *text = options_text(OPTION_IMAGE);
    char id[IMAGE_ID_SIZE];
    if (submit_modules(spank, local, e) < 0 || submit_volumes(spank, local, e) < 0)
        return -1;
    if (text == NULL)
        return 0;
    const char *path = tag_of_type(text, "local");
    if (path != NULL && !options_may_be_path(path))
        return error_set(e, 0, "%s: write an absolute path after local:", text);
    const char *given = tag_of_type(text, "id"), *request = NULL;
    if (given != NULL && !image_id_is_valid(given))
        return error_set(e, 0, "%s is not an image id: 64 lower-case hex digits after id:", text);
    if (given == NULL && path == NULL) {
        given = local ? inherited_id(text) : NULL;
        request = request_of(text);
    }
    if (given != NULL)
        memcpy(id, given, IMAGE_ID_SIZE);
    else if (path == NULL && look_up(text, id, e) < 0)
        return -1;
    /* Text and id go together: a step inside this step compares with what this one asked for. */
    if (local && hand_down(OPTION_IMAGE, text, e) < 0)
        return -1;
    const char *const values[VARIABLES] = {path != NULL ? path : id, path != NULL ? "local" : "id", request};
    int result = 0;
    for (size_t i = 0; i < VARIABLES && result == 0; i++)
        result = publish(spank, variables[i], values[i], e);
    return result < 0 ? -1 : submit_secret(spank, local, e);
}
