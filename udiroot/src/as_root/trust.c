/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "as_root/kernel.h"
#include "base/text.h"

int trust_check(const struct stat *st, uid_t owner, const char *owner_name, const char *path, struct error *e)
{
    if (st->st_uid != 0 && st->st_uid != owner)
        return error_set(e, 0, "%s belongs to uid %u; it must belong to root%s%s", path, (unsigned)st->st_uid,
                         owner == 0 ? "" : " or ", owner == 0 ? "" : owner_name);
    if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return error_set(e, 0,
                         "%s can be written by others (mode %04o); name another place, or take that away (chmod go-w)",
                         path, (unsigned)st->st_mode & 07777U);
    return 0;
}

struct visit {
    const char *path, *owner_name;
    uid_t owner;
    bool follow;
    struct stat *st; /* of what was seen last */
    struct error *e;
};

static int look_at(void *context, int fd, const struct stat *st, const char *name)
{
    struct visit *v = context;
    struct error cause;
    if (fd < 0)
        return error_set(v->e, errno, "cannot open %s, at '%s'", v->path, name);
    *v->st = *st;
    if (S_ISLNK(st->st_mode) && v->follow)
        return 0;
    if (S_ISLNK(st->st_mode))
        return error_set(v->e, ELOOP, "%s leads through the symbolic link '%s'; name the place itself", v->path, name);
    char at[PATH_MAX];
    ssize_t length = readlink(kernel_fd_path(fd).text, at, sizeof at - 1);
    at[length > 0 ? length : 0] = '\0';
    if (trust_check(st, v->owner, v->owner_name, length > 0 ? at : name, &cause) == 0)
        return 0;
    return error_set(v->e, 0, "cannot trust %s: %s", v->path, cause.text);
}

static int walk(const char *path, uid_t owner, const char *owner_name, bool follow, struct stat *st, struct error *e)
{
    struct visit v = {.path = path, .owner_name = owner_name, .owner = owner, .follow = follow, .st = st, .e = e};
    CLEANUP_CLOSE int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (path[0] != '/')
        return error_set(e, EINVAL, "cannot open %s", path);
    if (root < 0 || fstat(root, st) < 0)
        return error_set(e, errno, "cannot open /");
    e->text[0] = '\0';
    int fd = look_at(&v, root, st, "/") < 0 ? -1 : kernel_walk(root, path, KERNEL_LINKS, look_at, &v);
    return fd >= 0 || e->text[0] != '\0' ? fd : error_set(e, errno, "cannot open %s", path);
}

/* A directory without links on the way, as most are: opened at once, then every directory above it up to the root is
 * looked at from there. Who could move one of them meanwhile owns it, or the one it lies in. -1: the walk will tell. */
static int open_directly(const char *path, uid_t owner, const char *owner_name, struct stat *st)
{
    char up[PATH_MAX];
    size_t used = 0;
    struct stat above;
    struct error ignored;
    CLEANUP_CLOSE int fd = path[0] == '/' && strstr(path, "..") == NULL ? kernel_open_no_symlinks(path) : -1;
    if (fd < 0 || fstat(fd, st) < 0 || !S_ISDIR(st->st_mode) || trust_check(st, owner, owner_name, path, &ignored) < 0)
        return -1;
    for (const char *c = path; *(c += strspn(c, "/")) != '\0'; c += strcspn(c, "/")) {
        used += (size_t)snprintf(up + used, sizeof up - used, "../");
        if (used >= sizeof up || fstatat(fd, up, &above, 0) < 0 ||
            trust_check(&above, owner, owner_name, up, &ignored) < 0)
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

int trust_open(const char *path, uid_t owner, const char *owner_name, bool follow, const char *what, struct error *e)
{
    struct error cause;
    struct stat st;
    int fd = resolve(path, owner, owner_name, follow, &st, &cause);
    return fd >= 0 ? fd : error_set(e, 0, "%s%s%s", what, *what != '\0' ? " cannot be used: " : "", cause.text);
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
