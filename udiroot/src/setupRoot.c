/* SPDX-License-Identifier: BSD-3-Clause
 *
 * setupRoot [options] <imageType> <imageIdentifier>: prepares one container on this node, which shifter then enters
 * without mounting anything (spec: runtime contract, section 15). Run by root, usually by the workload manager's
 * prolog.
 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "as_root/image_store.h"
#include "as_root/process.h"
#include "as_root/rootfs.h"
#include "as_root/state.h"
#include "as_user/account.h"
#include "as_user/config.h"
#include "as_user/plan.h"
#include "base/text.h"
#include "node/caller.h"
#include "node/environment.h"
#include "node/hosts.h"
#include "node/prepare.h"
#include "node/sshd_files.h"

struct request {
    const char *user, *hosts, *secret, *holder, *modules, *type, *identifier;
    struct strings volumes;
    bool have_uid, have_gid, verbose;
    uid_t uid;
    gid_t gid;
};

static const char usage[] = "usage: setupRoot -u USER [-U UID] [-G GID] [-v MAPS]... [-m MODULE,...] "
                            "[-N \"HOST/COUNT ...\" | -N @-] [-s @-] [-J HOLDER] [-V] TYPE IDENTIFIER";

enum { HOSTS_LIMIT = 1 << 20 }; /* bytes of -N, with which environments are compared: state.c */

/* Seconds after which no further builder is waited for: each may fail as late as the one before. */
enum { PATIENCE = 20 };

static int parse_id(const char *text, const char *option, unsigned *out, struct error *e)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || number >= (unsigned)-1)
        return error_set(e, 0, "%s needs a number, not '%s'", option, text);
    *out = (unsigned)number;
    return 0;
}

static int parse_option(int option, const char *value, struct request *q, struct error *e)
{
    switch (option) {
    case 'u': q->user = value; return 0;
    case 'U': q->have_uid = true; return parse_id(value, "-U", &q->uid, e);
    case 'G': q->have_gid = true; return parse_id(value, "-G", &q->gid, e);
    case 'N': q->hosts = value; return 0;
    case 'J': q->holder = value; return state_check_holder(value, e);
    case 'V': q->verbose = true; return 0;
    case 'v': strings_add(&q->volumes, value); return 0;
    case 'm': q->modules = value; return 0;
    case 's':
        q->secret = *value != '\0' ? value : NULL;
        return q->secret == NULL || strcmp(value, "@-") == 0
                   ? 0
                   : error_set(e, 0, "-s: keys are made for each job from a secret on standard input; say -s @-");
    case ':': return error_set(e, 0, "option -%c needs a value; %s", optopt, usage);
    default: return error_set(e, 0, "unknown option -%c; %s", optopt, usage);
    }
}

static int parse_request(int argc, char **argv, struct request *q, struct error *e)
{
    *q = (struct request){.holder = state_default_holder};
    opterr = 0;
    int option;
    while ((option = getopt(argc, argv, "+:u:U:G:v:m:s:N:J:V")) != -1)
        if (parse_option(option, optarg, q, e) < 0)
            return -1;
    if (argc - optind != 2 || q->user == NULL || *q->user == '\0')
        return error_set(e, 0, "%s; %s",
                         argc - optind != 2 ? "there must be two words, TYPE and IDENTIFIER" : "-u USER is missing",
                         usage);
    q->type = argv[optind];
    q->identifier = argv[optind + 1];
    static const char *const types[] = {"id", "docker", "custom", "local"};
    bool known = false;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        known = known || strcmp(q->type, types[i]) == 0;
    if (!known)
        return error_set(e, 0, "unknown image type '%s'; use id", q->type);
    if (q->have_uid && q->have_gid)
        return 0;
    const struct passwd *entry = getpwnam(q->user);
    if (entry == NULL)
        return error_set(e, 0, "there is no account named %s; give its ids with -U and -G", q->user);
    q->uid = q->have_uid ? q->uid : entry->pw_uid;
    q->gid = q->have_gid ? q->gid : entry->pw_gid;
    return 0;
}

static int read_all(char **out, struct error *e)
{
    size_t length = 0, size = 0;
    for (;;) {
        if (length + 1 >= size) {
            size = size == 0 ? 65536 : size * 2;
            *out = text_grow(*out, size, 1);
        }
        ssize_t got = read(STDIN_FILENO, *out + length, size - length - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(e, errno, "cannot read standard input, which an option says @- for");
        length += (size_t)got;
        if (length > HOSTS_LIMIT)
            return error_set(e, 0, "-N @-: the host list is longer than %d bytes", HOSTS_LIMIT);
        (*out)[length] = '\0';
        if (got == 0)
            return 0;
    }
}

/* One line for each option that says "@-", in the order -N, -s: one argument is limited to 128 KiB by the kernel
 * (execve(2)), and others can see it. */
static int read_input(struct request *q, char **text, struct error *e)
{
    const char **wanting[2] = {&q->hosts, &q->secret};
    char *next = NULL;
    for (size_t i = 0; i < 2; i++) {
        if (*wanting[i] == NULL || strcmp(*wanting[i], "@-") != 0)
            continue;
        if (*text == NULL && read_all(text, e) < 0)
            return -1;
        next = next == NULL ? *text : next;
        *wanting[i] = next;
        next += strcspn(next, "\n");
        if (*next == '\n')
            *next++ = '\0';
    }
    return 0;
}

/* The list of -N becomes "" for none; `hosts`: the text of /var/hostsfile, NULL for none. */
static int take_hosts(struct request *q, char **input, char **hosts, struct error *e)
{
    if (read_input(q, input, e) < 0)
        return -1;
    if (q->hosts == NULL)
        q->hosts = "";
    return *q->hosts != '\0' ? hosts_expand(q->hosts, hosts, e) : 0;
}

static void print_request(const struct request *q, const struct config *config, const struct plan *plan,
                          const struct plan_subject *subject)
{
    CLEANUP_FREE char *text = plan_describe(plan, subject);
    (void)printf("udiMount %s\nimagePath %s\nholder %s\nimage %s\nformat %s\n%s", config->udi_mount, config->image_path,
                 q->holder, subject->image->id, subject->image->meta.format, text);
    (void)fflush(stdout);
}

static int open_image(const struct request *q, const struct config *config, const struct caller *caller,
                      struct image *out, struct error *e)
{
    if (strcmp(q->type, "local") == 0) {
        struct image_spec spec;
        CLEANUP_FREE char *text = text_format("local:%s", q->identifier);
        if (image_spec_parse(text, NULL, &spec, e) < 0)
            return -1;
        int result = image_local_describe(config, spec.tag, out, e);
        image_spec_free(&spec);
        return result;
    }
    CLEANUP_CLOSE int store = image_store_open(config, e);
    if (store < 0 || image_open(store, config, q->identifier, out, e) < 0 || image_read_meta(out, e) < 0)
        return -1;
    return image_check_acl(&out->meta, caller->uid, caller->gid, caller->groups, caller->group_count, e);
}

static time_t seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static int prepare(struct request *q, struct error *e)
{
    struct config config;
    struct caller caller;
    struct account account;
    struct image image;
    struct modules modules;
    struct plan plan;
    struct volumes volumes = {0};
    struct sshd_files ssh = {.identity = NULL};
    CLEANUP_FREE char *input = NULL, *hosts = NULL;
    if (take_hosts(q, &input, &hosts, e) < 0 || config_load(SYSCONFDIR "/udiRoot.conf", false, &config, e) < 0 ||
        modules_choose(&config, q->modules, &modules, e) < 0 || volumes_of_user(&q->volumes, &volumes, e) < 0 ||
        plan_check(&config, &modules, &volumes, e) < 0 ||
        caller_of_account(q->user, q->uid, q->gid, &caller, e) < 0 ||
        account_of_uid(&config, q->uid, &account, e) < 0 || open_image(q, &config, &caller, &image, e) < 0)
        return -1;
    struct plan_subject subject = {.config = &config, .image = &image, .account = &account, .caller = &caller,
                                   .modules = &modules, .volumes = &volumes, .hosts = hosts};
    if (q->secret != NULL && sshd_files_make(&subject, q->secret, q->holder, &ssh, e) < 0)
        return -1;
    subject.files = ssh.identity != NULL ? ssh.files : NULL;
    CLEANUP_FREE char *of_job = text_format("%s%s%s", q->hosts, ssh.identity != NULL ? "\n" : "",
                                            ssh.identity != NULL ? ssh.identity : "");
    plan_make(&subject, &plan);
    if (q->verbose)
        print_request(q, &config, &plan, &subject);
    CLEANUP_FREE char *text = plan_describe(&plan, &subject);
    CLEANUP_CLOSE int proc = rootfs_open_proc(e);
    struct prepare state;
    if (proc < 0)
        return -1;
    int result;
    bool waited;
    const time_t begun = seconds();
    do {
        CLEANUP_CLOSE int builder = -1;
        int *const mark = seconds() - begun < PATIENCE ? &builder : NULL;
        result = prepare_open(&config, proc, true, &state, e);
        if (result == 0)
            result = prepare_join(&state, caller.uid, text, of_job, q->holder, ssh.identity != NULL, mark, e);
        waited = result == 0 && builder >= 0;
        if (result == 0 && !waited)
            result = prepare_build(&state, &plan, &subject, proc, of_job, q->holder, ssh.identity != NULL, e);
        prepare_close(&state);
        if (waited)
            result = environment_await(builder, e);
    } while (waited && result == 0);
    return result < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
    struct error e;
    struct process process;
    struct request request;
    text_program = "setupRoot";
    text_failure = 1;
    (void)clearenv();
    if (process_begin(argc, NULL, &process, &e) == 0 && parse_request(argc, argv, &request, &e) == 0) {
        if (getuid() != 0 || geteuid() != 0)
            (void)error_set(&e, 0, "only root can prepare a container");
        else if (prepare(&request, &e) == 0)
            return 0;
    }
    (void)dprintf(STDERR_FILENO, "setupRoot: %s\n", e.text);
    return 1;
}
