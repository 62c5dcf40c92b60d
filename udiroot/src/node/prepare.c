/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "as_root/etcfiles.h"
#include "as_root/mounts.h"
#include "as_root/process.h"
#include "as_root/state.h"
#include "base/text.h"
#include "node/apart.h"
#include "node/environment.h"
#include "node/shown.h"
#include "node/sshd.h"

/* An environment that is not ready, or whose namespace is not pinned, and that nobody builds, will never be. */
static int remove_debris(struct prepare *s, struct error *e)
{
    struct strings names = {0};
    int result = state_list(s->directory, (uid_t)-1, &names, e);
    for (size_t i = 0; i < names.count && result == 0; i++) {
        CLEANUP_CLOSE int environment = state_open_environment(s->directory, names.items[i]);
        CLEANUP_CLOSE int pinned = environment < 0 ? -1 : state_open_namespace(environment);
        if (pinned < 0 && errno != ENOENT)
            result = error_set(e, errno, "cannot examine %s/%s", s->path, names.items[i]);
        else if (environment >= 0 && (pinned < 0 || !state_has(environment, "ready")) &&
                 !environment_is_being_built(environment))
            result = environment_remove(s, names.items[i], e);
    }
    strings_free(&names);
    return result;
}

static int take_lock(int base, struct error *e)
{
    while (flock(base, LOCK_EX) < 0)
        if (errno != EINTR)
            return error_set(e, errno, "cannot lock " STATEDIR);
    return 0;
}

/* The descriptor goes too: it is the lock's as long as any process has a copy, and one that waits for a file system of
 * a user's keeps its copy even when it is killed. */
static void let_go(struct prepare *s)
{
    (void)close(s->base);
    s->base = -1;
}

/* The lock is the directory itself, which its last user removes: a lock on a removed one is none. */
static int lock_base(bool create, struct prepare *s, struct error *e)
{
    for (;;) {
        if (create && mkdir(STATEDIR, 0700) < 0 && errno != EEXIST)
            return error_set(e, errno, "cannot create " STATEDIR);
        s->base = state_open_trusted(STATEDIR);
        if (s->base < 0 && errno == ENOENT && create) /* removed since */
            continue;
        if (s->base < 0 && errno == ENOENT)
            return 0;
        if (s->base < 0)
            return error_set(e, errno, "cannot use " STATEDIR " (it must be a directory of root with mode 0700)");
        struct stat locked, named;
        if (take_lock(s->base, e) < 0)
            return -1;
        if (fstat(s->base, &locked) == 0 && stat(STATEDIR, &named) == 0 && locked.st_ino == named.st_ino) {
            process_hold_signals(); /* until now they could be answered at once */
            return 0;
        }
        let_go(s);
    }
}

/* The pins need a mount that shares with nobody: the kernel refuses to let a namespace travel into itself. */
static int mount_directory(struct prepare *s, struct error *e)
{
    if (mkdir(s->path, 0700) < 0 && errno != EEXIST)
        return error_set(e, errno, "cannot create %s", s->path);
    CLEANUP_CLOSE int bare = kernel_open_no_symlinks(s->path);
    struct stat base, directory;
    if (bare < 0 || fstat(s->base, &base) < 0 || fstat(bare, &directory) < 0)
        return error_set(e, errno, "cannot open %s", s->path);
    if (base.st_dev == directory.st_dev &&
        mount("shifter", kernel_fd_path(bare).text, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "mode=0700,size=16m,nr_inodes=16384") < 0)
        return error_set(e, errno, "cannot mount a tmpfs on %s", s->path);
    if (mount(NULL, s->path, NULL, MS_PRIVATE, NULL) < 0)
        return error_set(e, errno, "cannot make %s private", s->path);
    return 0;
}

int prepare_open(const struct config *config, int proc, bool create, struct prepare *out, struct error *e)
{
    *out = (struct prepare){.config = config, .proc = proc, .base = -1, .directory = -1, .path = state_path(config)};
    if (lock_base(create, out, e) < 0 || out->base < 0)
        return out->base < 0 && !create ? 0 : -1;
    if (create && mount_directory(out, e) < 0)
        return -1;
    out->directory = state_open_trusted(out->path);
    if (out->directory < 0)
        return errno == ENOENT && !create ? 0 : error_set(e, errno, "cannot open %s", out->path);
    return remove_debris(out, e);
}

void prepare_close(struct prepare *s)
{
    struct strings names = {0};
    struct error ignored;
    bool empty = s->base >= 0 && s->directory >= 0 &&
                 state_list(s->directory, (uid_t)-1, &names, &ignored) == 0 && names.count == 0;
    strings_free(&names);
    if (s->directory >= 0)
        (void)close(s->directory);
    while (empty && umount2(s->path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        continue;
    if (s->base >= 0) { /* both fail where something is left */
        (void)rmdir(s->path);
        (void)rmdir(STATEDIR);
        (void)close(s->base);
    }
    free(s->path);
    *s = (struct prepare){.base = -1, .directory = -1};
}

int prepare_join(struct prepare *s, uid_t uid, const char *plan_text, const char *of_job, const char *holder,
                 bool with_sshd, int *builder, struct error *e)
{
    struct strings names = {0};
    int result = state_list(s->directory, uid, &names, e);
    for (size_t i = 0; i < names.count && result == 0; i++) {
        CLEANUP_CLOSE int environment = state_open_environment(s->directory, names.items[i]);
        if (environment < 0 || !state_file_equals(environment, "plan", plan_text) ||
            !state_file_equals(environment, "hosts", of_job))
            continue;
        if (!state_has(environment, "ready")) {
            if (builder != NULL && *builder < 0)
                *builder = environment_builder(environment);
        } else if (!with_sshd || sshd_is_alive(environment, s->proc))
            result = environment_hold(environment, holder, e) < 0 ? -1 : 1;
    }
    strings_free(&names);
    return result;
}

/* Returns 1 when the kernel takes the container's namespace for an older one than the host's. */
static int pin_namespace(int environment, int container, struct error *e)
{
    CLEANUP_CLOSE int target = openat(environment, "ns", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (target >= 0 && mount(kernel_fd_path(container).text, kernel_fd_path(target).text, NULL, MS_BIND, NULL) == 0)
        return 0;
    bool older = target >= 0 && errno == EINVAL;
    (void)error_set(e, errno, "cannot pin the container's mount namespace");
    return older ? 1 : -1;
}

/* Others need not wait for what takes long, nor for what a user can make long. The environment that is being built
 * keeps STATEDIR from being removed, so it is still the lock; but unsetupRoot may have been here. `done` is the
 * result of what was done without the lock, `e` says what was wrong with it. */
static int lock_again(struct prepare *s, int environment, int done, struct error *e)
{
    struct error second, *cause = done < 0 ? &second : e;
    s->base = state_open_trusted(STATEDIR);
    if (s->base < 0)
        (void)error_set(cause, errno, "cannot open " STATEDIR " again");
    if (s->base < 0 || take_lock(s->base, cause) < 0 || done < 0)
        return -1;
    return environment_is_unheld(environment)
               ? error_set(e, 0, "unsetupRoot has taken the container away while it was built")
               : 0;
}

static int build_and_pin(struct prepare *s, int environment, const struct plan *plan,
                         const struct plan_subject *subject, int proc, int *tree, struct error *e)
{
    CLEANUP_CLOSE int container = -1;
    if (*tree >= 0) /* of an attempt before */
        (void)close(*tree);
    *tree = -1;
    let_go(s);
    int built = apart_build(plan, subject, proc, &container, tree, e);
    return lock_again(s, environment, built, e) < 0 ? -1 : pin_namespace(environment, container, e);
}

/* A mount namespace may hold younger ones only. Since Linux 6.18 their age is a number that each processor takes from a
 * stock of its own, so where the host's namespace is not the system's first one, a new one can look older. On the
 * processor where the host's was made it never does: they are tried one after the other. */
static int build_pinned(struct prepare *s, int environment, const struct plan *plan,
                        const struct plan_subject *subject, int proc, int *tree, struct error *e)
{
    int result = build_and_pin(s, environment, plan, subject, proc, tree, e);
    cpu_set_t allowed, one;
    if (result <= 0 || sched_getaffinity(0, sizeof allowed, &allowed) < 0)
        return result == 0 ? 0 : -1;
    for (size_t cpu = 0; cpu < CPU_SETSIZE && result > 0; cpu++) {
        if (!CPU_ISSET(cpu, &allowed))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof one, &one) == 0)
            result = build_and_pin(s, environment, plan, subject, proc, tree, e);
    }
    (void)sched_setaffinity(0, sizeof allowed, &allowed);
    return result == 0 ? 0 : -1;
}

/* A free name <uid>.<n>; the lock keeps it ours. */
static char *make_environment(struct prepare *s, uid_t uid, struct error *e)
{
    for (unsigned n = 0; n < 65536; n++) {
        char *name = text_format("%u.%u", (unsigned)uid, n);
        if (mkdirat(s->directory, name, 0700) == 0)
            return name;
        free(name);
        if (errno != EEXIST) {
            (void)error_set(e, errno, "cannot create a directory in %s", s->path);
            return NULL;
        }
    }
    (void)error_set(e, 0, "%s holds too many environments of uid %u", s->path, (unsigned)uid);
    return NULL;
}

static int fill_environment(struct prepare *s, int environment, const struct plan *plan,
                            const struct plan_subject *subject, int proc, const char *of_job, const char *holder,
                            bool with_sshd, struct error *e)
{
    CLEANUP_FREE char *text = plan_describe(plan, subject);
    if (upper_write(environment, "plan", text, strlen(text), e) < 0 ||
        upper_write(environment, "hosts", of_job, strlen(of_job), e) < 0 ||
        upper_write(environment, "ns", "", 0, e) < 0)
        return -1;
    if (mkdirat(environment, "holders", 0700) < 0)
        return error_set(e, errno, "cannot create the list of holders");
    if (environment_hold(environment, holder, e) < 0)
        return -1;
    CLEANUP_CLOSE int tree = -1;
    if (build_pinned(s, environment, plan, subject, proc, &tree, e) < 0) /* what is pinned is complete */
        return -1;
    bool show = tree >= 0 && !plan->writable && !subject->image->meta.restricted && subject->volumes->count == 0;
    for (size_t i = 0; i < plan->count && show; i++)
        show = plan->steps[i].kind != PLAN_CACHE;
    if (show && shown_attach(s, proc, environment, tree, e) < 0)
        return -1;
    if (with_sshd) {
        CLEANUP_CLOSE int container = state_open_namespace(environment);
        let_go(s);
        int started = sshd_start(environment, container, proc, subject->caller, e);
        if (lock_again(s, environment, started, e) < 0)
            return -1;
    }
    return process_check_signals(e) < 0 ? -1 : upper_write(environment, "ready", "", 0, e);
}

int prepare_build(struct prepare *s, const struct plan *plan, const struct plan_subject *subject, int proc,
                  const char *of_job, const char *holder, bool with_sshd, struct error *e)
{
    CLEANUP_FREE char *name = shown_check(s, proc, e) < 0 ? NULL : make_environment(s, subject->caller->uid, e);
    if (name == NULL)
        return -1;
    CLEANUP_CLOSE int environment = state_open_environment(s->directory, name);
    if (environment < 0)
        return error_set(e, errno, "cannot open %s/%s", s->path, name);
    CLEANUP_CLOSE int builder = environment_claim(environment, e);
    if (builder >= 0 && fill_environment(s, environment, plan, subject, proc, of_job, holder, with_sshd, e) == 0)
        return 0;
    struct error second;
    (void)environment_remove(s, name, &second); /* the first error is the one to report */
    return -1;
}

/* Mounts at or below `base` in the host's table until the kernel shows none. Always the one with the shortest path,
 * with all below it: a longer path can lead through directories of users, who would turn it to another mount of the
 * host. */
static int unmount_all(int proc, const char *base, struct error *e)
{
    for (int round = 0; round < 4096; round++) {
        struct mount_table table;
        if (mount_table_read(proc, &table, e) < 0)
            return -1;
        const char *shortest = NULL;
        for (size_t i = 0; i < table.count; i++) {
            const char *point = table.items[i].point;
            if (path_is_below(point, base) && (shortest == NULL || strlen(point) < strlen(shortest)))
                shortest = point;
        }
        bool done = shortest == NULL;
        int failure = done || umount2(shortest, MNT_DETACH | UMOUNT_NOFOLLOW) == 0 ? 0 : errno;
        if (failure != 0 && failure != EINVAL && failure != ENOENT)
            (void)error_set(e, failure, "cannot unmount %s", shortest);
        mount_table_free(&table);
        if (done)
            return 0;
        if (failure != 0 && failure != EINVAL && failure != ENOENT)
            return -1;
    }
    return error_set(e, 0, "%s is still mounted although it was unmounted again and again; see /proc/self/mountinfo",
                     base);
}

int prepare_release(struct prepare *s, int proc, const char *holder, struct error *e)
{
    struct strings names = {0};
    int result = s->directory < 0 ? 0 : state_list(s->directory, (uid_t)-1, &names, e);
    for (size_t i = 0; i < names.count && result == 0; i++) {
        CLEANUP_CLOSE int environment = state_open_environment(s->directory, names.items[i]);
        environment_release(environment, holder);
        if ((holder == NULL || environment_is_unheld(environment)) && !environment_is_being_built(environment))
            result = environment_remove(s, names.items[i], e);
    }
    if (result == 0 && holder == NULL)
        result = unmount_all(proc, s->config->udi_mount, e);
    for (size_t i = 0; i < names.count && result == 0 && holder == NULL; i++) {
        CLEANUP_CLOSE int environment = state_open_environment(s->directory, names.items[i]);
        if (environment >= 0) /* that is being built: what will be shown next is not its tree */
            (void)unlinkat(environment, "shown", 0);
    }
    strings_free(&names);
    if (result < 0 || holder != NULL)
        return result;
    return s->config->loop_mount != NULL ? unmount_all(proc, s->config->loop_mount, e) : 0;
}
