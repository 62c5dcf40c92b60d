/* SPDX-License-Identifier: BSD-3-Clause */
#include "trust.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "kernel.h"
#include "text.h"

enum { MOST_LINKS = 40 }; /* as the kernel: path_resolution(7) */

int trust_check(const struct stat *st, uid_t owner, const char *owner_name, const char *path, struct error *e)
{
    if (st->st_uid != 0 && st->st_uid != owner)
        return error_set(e, 0, "%s belongs to uid %u; it must belong to root%s%s", path, (unsigned)st->st_uid,
                         owner == 0 ? "" : " or ", owner == 0 ? "" : owner_name);
    if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return error_set(e, 0, "%s can be written by others (mode %04o); take that away (chmod go-w)", path,
                         (unsigned)st->st_mode & 07777U);
    return 0;
}

struct walk {
    int directory;       /* where it stands */
    char at[PATH_MAX];   /* the path of that, without links; "" is the root */
    char rest[PATH_MAX]; /* what is still to be walked */
    int links;           /* still allowed */
    struct stat st;      /* of where it stands */
    const char *path, *owner_name;
    uid_t owner;
};

static int fail(const struct walk *w, const char *name, int errnum, struct error *e)
{
    return error_set(e, errnum, "cannot open %s, at '%s'", w->path, name);
}

/* Takes `fd` over: a directory or file that the walk has come to, whose state is known. */
static int stand_at(struct walk *w, int fd, struct error *e)
{
    struct error cause;
    if (w->directory >= 0)
        (void)close(w->directory);
    w->directory = fd;
    if (trust_check(&w->st, w->owner, w->owner_name, w->at[0] != '\0' ? w->at : "/", &cause) == 0)
        return 0;
    return error_set(e, 0, "cannot trust %s: %s", w->path, cause.text);
}

static int stand_at_root(struct walk *w, struct error *e)
{
    w->at[0] = '\0';
    int fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fstat(fd, &w->st) < 0 ? fail(w, "/", errno, e) : stand_at(w, fd, e);
}

/* The target of the link `fd`, which lies where the walk stands, goes before the rest. */
static int follow_link(struct walk *w, int fd, const char *name, struct error *e)
{
    char target[PATH_MAX], joined[PATH_MAX];
    if (w->links-- <= 0)
        return error_set(e, ELOOP, "%s leads through the symbolic link '%s'; name the place itself", w->path, name);
    ssize_t length = readlinkat(fd, "", target, sizeof target - 1);
    if (length < 0)
        return fail(w, name, errno, e);
    target[length] = '\0';
    if (snprintf(joined, sizeof joined, "%s/%s", target, w->rest) >= (int)sizeof joined)
        return fail(w, name, ENAMETOOLONG, e);
    memcpy(w->rest, joined, sizeof w->rest);
    return target[0] == '/' ? stand_at_root(w, e) : 0;
}

static int enter(struct walk *w, int fd, const char *name, struct error *e)
{
    size_t length = strlen(w->at);
    char *slash = strrchr(w->at, '/');
    if (strcmp(name, "..") == 0 && slash != NULL)
        *slash = '\0';
    else if (strcmp(name, "..") != 0 && strcmp(name, ".") != 0)
        (void)snprintf(w->at + length, sizeof w->at - length, "/%s", name);
    return stand_at(w, fd, e);
}

static int step(struct walk *w, const char *name, struct error *e)
{
    int fd = openat(w->directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &w->st) < 0)
        return fail(w, name, errno, e);
    if (!S_ISLNK(w->st.st_mode))
        return enter(w, fd, name, e);
    int result = follow_link(w, fd, name, e);
    (void)close(fd);
    return result;
}

/* Cuts the first component off the rest; false at the end, or when it is too long to be a name. */
static bool next_name(struct walk *w, char name[NAME_MAX + 1])
{
    const char *start = w->rest + strspn(w->rest, "/");
    size_t length = strcspn(start, "/");
    if (length == 0 || length > NAME_MAX)
        return false;
    memcpy(name, start, length);
    name[length] = '\0';
    memmove(w->rest, start + length, strlen(start + length) + 1);
    return true;
}

static int walk(const char *path, uid_t owner, const char *owner_name, bool follow, struct stat *st, struct error *e)
{
    struct walk w = {.directory = -1, .links = follow ? MOST_LINKS : 0, .path = path, .owner_name = owner_name,
                     .owner = owner};
    char name[NAME_MAX + 1];
    if (path[0] != '/' || snprintf(w.rest, sizeof w.rest, "%s", path) >= (int)sizeof w.rest)
        return fail(&w, path, path[0] != '/' ? EINVAL : ENAMETOOLONG, e);
    int result = stand_at_root(&w, e);
    while (result == 0 && next_name(&w, name))
        result = step(&w, name, e);
    if (result == 0 && w.rest[strspn(w.rest, "/")] != '\0')
        result = fail(&w, w.rest, ENAMETOOLONG, e);
    *st = w.st;
    if (result == 0)
        return w.directory;
    if (w.directory >= 0)
        (void)close(w.directory);
    return -1;
}

/* A directory without links on the way, as most are: opened at once, then every directory above it up to the root is
 * looked at from there. Who could move one of them meanwhile owns it, or the one it lies in. -1: the walk will tell. */
static int open_directly(const char *path, uid_t owner, const char *owner_name, struct stat *st)
{
    char up[PATH_MAX] = "";
    size_t used = 0;
    struct stat above;
    struct error ignored;
    CLEANUP_CLOSE int fd = strstr(path, "..") == NULL ? kernel_open_no_symlinks(path) : -1;
    if (fd < 0 || fstat(fd, st) < 0 || !S_ISDIR(st->st_mode) || trust_check(st, owner, owner_name, path, &ignored) < 0)
        return -1;
    for (const char *c = path; *(c += strspn(c, "/")) != '\0'; c += strcspn(c, "/")) {
        used += (size_t)snprintf(up + used, sizeof up - used, "../");
        if (used >= sizeof up || fstatat(fd, up, &above, 0) < 0 || trust_check(&above, owner, owner_name, up, &ignored) < 0)
            return -1;
    }
    int trusted = fd;
    fd = -1; /* the caller's */
    return trusted;
}

static int resolve(const char *path, uid_t owner, const char *owner_name, bool follow, struct stat *st, struct error *e)
{
    int fd = open_directly(path, owner, owner_name, st);
    return fd >= 0 ? fd : walk(path, owner, owner_name, follow, st, e);
}

int trust_open(const char *path, uid_t owner, const char *owner_name, bool follow, struct error *e)
{
    struct stat st;
    return resolve(path, owner, owner_name, follow, &st, e);
}

int trust_open_directory(const char *path, uid_t owner, const char *owner_name, const char *what, struct error *e)
{
    struct error cause;
    struct stat st;
    int fd = resolve(path, owner, owner_name, false, &st, &cause);
    if (fd < 0)
        return error_set(e, 0, "%s cannot be used: %s", what, cause.text);
    if (S_ISDIR(st.st_mode))
        return fd;
    (void)close(fd);
    return error_set(e, 0, "%s %s is not a directory", what, path);
}
