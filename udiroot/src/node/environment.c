/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/environment.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>

#include "as_root/etcfiles.h"
#include "as_root/process.h"
#include "as_root/state.h"
#include "base/text.h"
#include "node/sshd.h"

int environment_claim(int environment, struct error *e)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int builder = openat(environment, "builder", O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (builder >= 0 && fcntl(builder, F_SETLK, &whole) == 0)
        return builder;
    (void)error_set(e, errno, "cannot mark an environment as one that is being built");
    if (builder >= 0)
        (void)close(builder);
    return -1;
}

static bool is_locked(int builder)
{
    struct flock other = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return builder >= 0 && fcntl(builder, F_GETLK, &other) == 0 && other.l_type != F_UNLCK;
}

int environment_builder(int environment)
{
    int builder = openat(environment, "builder", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (builder < 0 || is_locked(builder))
        return builder;
    (void)close(builder);
    return -1;
}

bool environment_is_being_built(int environment)
{
    CLEANUP_CLOSE int builder = environment_builder(environment);
    return builder >= 0;
}

int environment_await(int builder, struct error *e)
{
    const struct timespec moment = {.tv_nsec = 10000000};
    while (is_locked(builder)) {
        if (process_check_signals(e) < 0)
            return -1;
        (void)nanosleep(&moment, NULL);
    }
    return 0;
}

int environment_hold(int environment, const char *holder, struct error *e)
{
    CLEANUP_CLOSE int holders = state_open_environment(environment, "holders");
    return holders < 0 ? error_set(e, errno, "cannot open the list of holders")
                       : upper_write(holders, holder, "", 0, e);
}

bool environment_is_unheld(int environment)
{
    CLEANUP_CLOSE int holders = state_open_environment(environment, "holders");
    struct strings names = {0};
    struct error ignored;
    bool unheld = holders < 0 ? errno == ENOENT
                              : state_list(holders, (uid_t)-1, &names, &ignored) == 0 && names.count == 0;
    strings_free(&names);
    return unheld;
}

void environment_release(int environment, const char *holder)
{
    CLEANUP_CLOSE int holders = state_open_environment(environment, "holders");
    struct strings names = {0};
    struct error ignored;
    if (holders >= 0 && holder != NULL)
        strings_add(&names, holder);
    else if (holders >= 0)
        (void)state_list(holders, (uid_t)-1, &names, &ignored);
    for (size_t i = 0; i < names.count; i++)
        (void)unlinkat(holders, names.items[i], 0);
    strings_free(&names);
}

int environment_remove(const struct prepare *s, const char *name, struct error *e)
{
    CLEANUP_CLOSE int environment = state_open_environment(s->directory, name);
    if (environment < 0)
        return error_set(e, errno, "cannot open %s/%s", s->path, name);
    (void)unlinkat(environment, "ready", 0); /* so that whoever comes after a kill goes on with it */
    if (sshd_stop(environment, s->proc, e) < 0)
        return -1;
    if (state_has(environment, "shown")) { /* the tree, and the mount that it is attached to */
        while (umount2(s->config->udi_mount, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
            continue;
        if (errno != EINVAL && errno != ENOENT)
            return error_set(e, errno, "cannot unmount %s", s->config->udi_mount);
    }
    CLEANUP_FREE char *pin = text_format("%s/%s/ns", s->path, name);
    while (umount2(pin, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        continue;
    if (errno != EINVAL && errno != ENOENT)
        return error_set(e, errno, "cannot unmount %s", pin);
    environment_release(environment, NULL);
    static const char *const own[] = {"plan", "hosts", "shown", "ns", "sshd", "builder"};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        (void)unlinkat(environment, own[i], 0);
    (void)unlinkat(environment, "holders", AT_REMOVEDIR);
    if (unlinkat(s->directory, name, AT_REMOVEDIR) < 0)
        return error_set(e, errno, "cannot remove %s/%s", s->path, name);
    return 0;
}
