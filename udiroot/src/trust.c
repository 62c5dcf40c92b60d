/* SPDX-License-Identifier: BSD-3-Clause */
#include "trust.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

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
    const char *path, *owner_name;
    uid_t owner;
};

static int fail(const struct walk *w, const char *name, int errnum, struct error *e)
{
    return error_set(e, errnum, "cannot open %s, at '%s'", w->path, name);
}

/* Takes `fd` over: a directory or file that the walk has come to. */
static int stand_at(struct walk *w, int fd, struct error *e)
{
    struct stat st;
    struct error cause;
    if (w->directory >= 0)
        (void)close(w->directory);
    w->directory = fd;
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail(w, w->at, errno, e);
    if (trust_check(&st, w->owner, w->owner_name, w->at[0] != '\0' ? w->at : "/", &cause) == 0)
        return 0;
    return error_set(e, 0, "cannot trust %s: %s", w->path, cause.text);
}

static int stand_at_root(struct walk *w, struct error *e)
{
    w->at[0] = '\0';
    return stand_at(w, open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), e);
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
    struct stat st;
    if (fd < 0)
        return fail(w, name, errno, e);
    if (fstat(fd, &st) < 0 || !S_ISLNK(st.st_mode))
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

int trust_open(const char *path, uid_t owner, const char *owner_name, bool follow, struct error *e)
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
    if (result == 0)
        return w.directory;
    if (w.directory >= 0)
        (void)close(w.directory);
    return -1;
}
