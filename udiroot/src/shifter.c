/* SPDX-License-Identifier: BSD-3-Clause
 *
 * shifter: runs one command in a container. Installed setuid root; the phases and who they run as are listed in
 * docs/security.md. Everything a user says is read with the user's rights; root executes a plan, enters it and is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "as_root/image_local.h"
#include "as_root/image_store.h"
#include "as_root/mounts.h"
#include "as_root/privilege.h"
#include "as_root/process.h"
#include "as_root/rootfs.h"
#include "as_root/state.h"
#include "as_user/account.h"
#include "as_user/command.h"
#include "as_user/config.h"
#include "as_user/container_environ.h"
#include "as_user/environ.h"
#include "as_user/explain.h"
#include "as_user/modules.h"
#include "as_user/options.h"
#include "as_user/plan.h"
#include "as_user/prepared.h"
#include "as_user/request.h"
#include "as_user/userhooks.h"
#include "base/text.h"

#ifndef VERSION
#error "VERSION comes from the Makefile"
#endif

struct run { /* one invocation, filled phase by phase */
    struct process process;
    struct caller caller;
    struct strings outer; /* the caller's environment */
    struct options options;
    struct config config;
    struct image_spec spec;
    struct image image;
    struct account account;
    struct modules modules;
    struct volumes volumes;
    struct prepared prepared; /* in place of options and variables, where they name no image */
    struct command command;
    struct strings environ;
    struct strings origins; /* of the variables, for --explain */
    char *workdir; /* what was asked for, or NULL: `cwd` if the container has it */
    char *cwd;
    char *holder;
};

static int fail(const struct error *e)
{
    (void)dprintf(STDERR_FILENO, "shifter: %s\n", e->text);
    return EXIT_SHIFTER;
}

/* As root: the image store belongs to the gateway's account and may be closed to everybody else. */
static int open_image(struct run *r, struct error *e)
{
    char id[IMAGE_ID_LENGTH + 1];
    CLEANUP_CLOSE int store = image_store_open(&r->config, e);
    if (store < 0)
        return -1;
    if (r->spec.type == IMAGE_ID)
        return image_open(store, &r->config, r->spec.tag, &r->image, e);
    int known = image_index_lookup(store, &r->config, &r->spec, id, e);
    if (known == 1)
        known = image_gateway_lookup(&r->config, &r->spec, &r->process, &r->caller, id, e);
    return known < 0 ? -1 : image_open(store, &r->config, id, &r->image, e);
}

/* The job on this node, as setupRoot -J was told it: only chooses among the caller's own environments. */
static char *job_holder(const struct strings *outer)
{
    const char *job = environ_get(outer, "SLURM_JOB_ID"), *node = environ_get(outer, "SLURMD_NODENAME");
    if (job == NULL || node == NULL)
        return NULL;
    char *holder = text_format("%s@%s", job, node);
    struct error ignored;
    if (state_check_holder(holder, &ignored) == 0)
        return holder;
    free(holder);
    return NULL;
}

/* Section 5.2: the container that the job's prolog prepared, or somebody who named no job. */
static int choose_prepared(struct run *r, struct error *e)
{
    struct strings plans = {0};
    privilege_as_root();
    state_plans(&r->config, r->caller.uid, r->holder, &plans);
    if (plans.count == 0 && r->holder != NULL)
        state_plans(&r->config, r->caller.uid, state_default_holder, &plans);
    privilege_as_user(&r->caller);
    int result = prepared_choose(&plans, &r->prepared, e);
    strings_free(&plans);
    if (result < 0 || image_spec_parse(r->prepared.image, NULL, &r->spec, e) < 0)
        return -1;
    free(r->spec.request); /* nobody typed it */
    r->spec.request = NULL;
    return 0;
}

/* A local: image has neither metadata nor an access list: what the user may not read of it he does not get. */
static int choose_image(struct run *r, struct error *e)
{
    if (r->spec.type == IMAGE_LOCAL)
        return image_local_open(&r->config, r->spec.tag, &r->image, e);
    privilege_as_root();
    int opened = open_image(r, e);
    privilege_as_user(&r->caller);
    if (opened < 0 || image_read_meta(&r->image, e) < 0)
        return -1;
    if (image_check_acl(&r->image.meta, r->caller.uid, r->caller.gid, r->caller.groups, r->caller.group_count, e) < 0)
        return image_unavailable(r->spec.tag, e); /* what was asked for, not the id behind it */
    return 0;
}

/* Section 7.4. */
static int choose_workdir(struct run *r, struct error *e)
{
    if (r->options.workdir && r->options.workdir_path == NULL && r->image.meta.workdir == NULL)
        return error_set(e, 0, "--workdir: image %s has no working directory; name one with --workdir=PATH",
                         r->image.id);
    if (r->options.workdir) {
        r->workdir = text_copy(r->options.workdir_path != NULL ? r->options.workdir_path : r->image.meta.workdir);
        return 0;
    }
    char cwd[PATH_MAX];
    if (getcwd(cwd, sizeof cwd) != NULL && cwd[0] == '/') /* else it was deleted or cannot be named */
        r->cwd = text_copy(cwd);
    return 0;
}

/* --keepenv. The loader of a setuid program has taken LD_*, TMPDIR and others away; the kernel still knows what the
 * caller said, and tells an undumpable process only as root. It is the command that gets it: nothing of ours has an
 * environment. */
static int open_process_environ(const struct run *r)
{
    privilege_as_root();
    int fd = open("/proc/self/environ", O_RDONLY | O_CLOEXEC);
    int cause = errno;
    privilege_as_user(&r->caller);
    errno = cause;
    return fd;
}

static int make_environment(struct run *r, struct error *e)
{
    bool kept = r->options.kept.count > 0;
    CLEANUP_CLOSE int fd = kept ? open_process_environ(r) : -1;
    if (kept && fd < 0)
        return error_set(e, errno, "--keepenv: cannot read /proc/self/environ");
    const struct environ_sources sources = {.options = &r->options, .outer = &r->outer, .process_environ = fd,
                                            .image = &r->image, .request = r->spec.request,
                                            .modules = &r->modules, .config = &r->config};
    return container_environ_make(&sources, &r->environ, r->options.explain != NULL ? &r->origins : NULL, e);
}

static int decide(struct run *r, struct error *e)
{
    if (config_load(SYSCONFDIR "/udiRoot.conf", false, &r->config, e) < 0 ||
        image_spec_select(r->options.image, &r->outer, r->config.default_image_type, &r->spec, e) < 0)
        return -1;
    r->holder = job_holder(&r->outer);
    if (r->spec.type == IMAGE_NONE && choose_prepared(r, e) < 0)
        return -1;
    const struct request request = {.options = &r->options, .outer = &r->outer, .prepared = &r->prepared};
    if (request_modules(&request, &r->config, &r->modules, e) < 0 || request_volumes(&request, &r->volumes, e) < 0 ||
        plan_check(&r->config, &r->modules, &r->volumes, e) < 0 || choose_image(r, e) < 0)
        return -1;
    /* An account is what a container is made for: to enter a prepared one, no daemon has to be asked for it. */
    if ((r->options.explain != NULL || state_is_absent()) &&
        account_of_uid(&r->config, r->caller.uid, &r->account, e) < 0)
        return -1;
    if (r->options.verbose) {
        for (size_t i = 0; i < r->config.remarks.count; i++)
            (void)dprintf(STDERR_FILENO, "shifter: %s\n", r->config.remarks.items[i]);
        (void)dprintf(STDERR_FILENO, "shifter: image %s, modules %s\n", r->image.id,
                      r->modules.count > 0 ? r->modules.names : "none");
    }
    if (command_choose(&r->options, &r->image, &r->outer, &r->command, e) < 0 || choose_workdir(r, e) < 0)
        return -1;
    return make_environment(r, e);
}

/* What a start is about. */
static struct plan_subject subject_of(const struct run *r)
{
    const struct account *account = r->account.name != NULL ? &r->account : NULL;
    return (struct plan_subject){.config = &r->config, .image = &r->image, .account = account,
                                 .caller = &r->caller, .modules = &r->modules, .volumes = &r->volumes};
}

/* Leaves root's rights to be given up. The namespace of an environment prepared for the same, or -1. */
static int find_prepared(const struct run *r, const struct plan *plan, const struct plan_subject *subject)
{
    CLEANUP_FREE char *text = plan_describe(plan, subject);
    privilege_as_root();
    return state_find(&r->config, r->caller.uid, text, r->holder);
}

/* As root. The account is unknown where the node has prepared containers, but none like this one. */
static int build(struct run *r, struct plan *plan, int proc, struct error *e)
{
    struct plan_subject subject = subject_of(r);
    if (subject.account == NULL) {
        privilege_as_user(&r->caller);
        if (account_of_uid(&r->config, r->caller.uid, &r->account, e) < 0)
            return -1;
        subject = subject_of(r);
        plan_free(plan);
        plan_make(&subject, plan);
        privilege_as_root();
    }
    return rootfs_build(plan, &subject, proc, e);
}

/* As root: into the container, a prepared one when the node has it, and out of root's rights for good. */
static int enter(struct run *r, struct error *e)
{
    const struct plan_subject subject = subject_of(r);
    struct plan plan;
    plan_make(&subject, &plan);
    CLEANUP_CLOSE int prepared = find_prepared(r, &plan, &subject);
    CLEANUP_CLOSE int proc = rootfs_open_proc(e);
    if (proc < 0)
        return -1;
    if (prepared >= 0) {
        if (setns(prepared, CLONE_NEWNS) < 0)
            return error_set(e, errno, "cannot enter the prepared container");
        if (mounts_verify(proc, &plan, e) < 0)
            return -1;
    } else if (build(r, &plan, proc, e) < 0) {
        return -1;
    }
    plan_free(&plan);
    return privilege_drop(&r->caller, proc, e);
}

/* As the user in the container, our descriptors closed. */
static void go_to_workdir(const char *wanted, bool asked_for)
{
    struct error e; /* makes the image's text fit for a terminal */
    if (wanted == NULL || process_change_directory(wanted) == 0 || !asked_for)
        return;
    (void)error_set(&e, 0, "cannot change to working directory %.1000s in the container: %s; staying in /", wanted,
                    strerror(errno));
    (void)fail(&e);
}

static int execute(struct run *r)
{
    struct error e;
    const char *workdir = r->workdir != NULL ? r->workdir : r->cwd;
    if (userhooks_run(&r->modules, &r->process, workdir, &e) < 0 || process_restore(&r->process, &e) < 0)
        return fail(&e);
    go_to_workdir(workdir, r->workdir != NULL);
    const char *program = r->command.words.items[0], *const shell[] = {r->command.shell, NULL};
    environ = r->environ.items; /* execvp searches the container's PATH */
    if (shell[0] != NULL) /* the container need not have it */
        (void)execv(shell[0], (char *const *)shell);
    (void)execvp(program, r->command.words.items);
    int cause = errno;
    bool missing = cause == ENOENT || cause == ENOTDIR;
    (void)error_set(&e, cause, "cannot execute '%s' in the container%s", program,
                    missing ? " (the program or its interpreter is not there)" : "");
    (void)fail(&e);
    return missing ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

/* Nothing of root's is left: for what the caller could do without us. */
static void become_caller(void)
{
    struct error e;
    if (setresgid(getgid(), getgid(), getgid()) == 0 && setresuid(getuid(), getuid(), getuid()) == 0 &&
        prctl(PR_SET_DUMPABLE, 0) == 0) /* the image of --explain is still open */
        return;
    (void)error_set(&e, errno, "cannot run as who called; is this a user namespace that lacks his ids? Leave it");
    _exit(fail(&e));
}

/* What takes intelligence is a program of its own, so that none of it is setuid. Root's rights are gone. */
static int become_tool(const struct run *r, const char *command, const char *argument)
{
    static const char program[] = PREFIX "/sbin/udiroot";
    const char *const arguments[] = {"udiroot", command, argument, NULL};
    struct error e;
    if (process_restore(&r->process, &e) == 0) {
        (void)execve(program, (char *const *)arguments, r->outer.items);
        (void)error_set(&e, errno, "cannot execute %s, which is installed with shifter", program);
    }
    return fail(&e);
}

/* The image was opened, and prepared environments are looked for, as for a start; everything else is done without
 * root's rights. The tool reads its input. */
static int explain(struct run *r)
{
    const struct plan_subject subject = subject_of(r);
    struct plan plan;
    plan_make(&subject, &plan);
    CLEANUP_CLOSE int prepared = find_prepared(r, &plan, &subject);
    const struct explanation told = {.subject = &subject,
                                     .plan = &plan,
                                     .prepared = prepared >= 0,
                                     .request = r->spec.request,
                                     .workdir = r->workdir != NULL ? r->workdir : r->cwd,
                                     .command = &r->command,
                                     .environ = &r->environ,
                                     .origins = &r->origins};
    struct error e;
    become_caller();
    CLEANUP_CLOSE int fd = memfd_create("explanation", MFD_CLOEXEC);
    if (fd >= 0 && explain_write(&told, fd) == 0 && lseek(fd, 0, SEEK_SET) == 0 && dup2(fd, STDIN_FILENO) >= 0)
        return become_tool(r, "explain", r->options.explain);
    (void)error_set(&e, errno, "cannot write the explanation into memory");
    return fail(&e);
}

int main(int argc, char **argv)
{
    static struct run r;
    struct error e, identity_error;
    const char *pmi = NULL;
    for (char **variable = environ; *variable != NULL; variable++) {
        /* The loader of a setuid program removes these; that the command never gets them must not depend on it. */
        if (strncmp(*variable, "LD_", 3) == 0 || strncmp(*variable, "GLIBC_TUNABLES=", 15) == 0)
            continue;
        strings_add(&r.outer, *variable);
        if (strncmp(*variable, "PMI_FD=", 7) == 0)
            pmi = *variable + 7;
    }
    if (process_begin(argc, pmi, &r.process, &e) < 0)
        return fail(&e);
    (void)clearenv();
    int identity = caller_of_process(&r.caller, &identity_error);
    if (identity == 0)
        privilege_as_user(&r.caller);
    else
        become_caller(); /* nothing of root's is needed to say what is wrong */
    if (options_parse(argc, argv, &r.options, &e) < 0)
        return fail(&e);
    if (r.options.action == ACTION_HELP)
        return fputs(options_help, stdout) < 0 || fflush(stdout) != 0 ? EXIT_SHIFTER : 0;
    if (r.options.action == ACTION_VERSION)
        return printf("shifter %s\n", VERSION) < 0 || fflush(stdout) != 0 ? EXIT_SHIFTER : 0;
    if (r.options.action == ACTION_CHECK_CONFIG) {
        become_caller();
        return become_tool(&r, "check", SYSCONFDIR "/udiRoot.conf");
    }
    if (identity < 0)
        return fail(&identity_error);
    if (decide(&r, &e) < 0)
        return fail(&e);
    if (r.options.explain != NULL)
        return explain(&r);
    if (enter(&r, &e) < 0)
        return fail(&e);
    return execute(&r);
}
