/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/kernel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/text.h"

/* One number on all architectures (since the unified tables of Linux 5.1). */
enum { NR_OPEN_TREE = 428, NR_MOVE_MOUNT = 429, NR_CLOSE_RANGE = 436, NR_OPENAT2 = 437, NR_MOUNT_SETATTR = 442 };

enum { RESOLVE_NO_MAGIC = 0x02, RESOLVE_NO_LINKS = 0x04, RESOLVE_AS_ROOT = 0x10 };
enum { TREE_CLONE = 1, TREE_RECURSIVE = 0x8000, EMPTY_PATH = 0x1000 };
enum { MOVE_FROM_EMPTY_PATH = 0x04, MOVE_TO_EMPTY_PATH = 0x40 };

struct open_request {
    uint64_t flags, mode, resolve;
};
struct attribute_request {
    uint64_t set, clear, propagation, user_namespace;
};

static int openat2_path(int directory, const char *path, uint64_t resolve)
{
    struct open_request how = {.flags = O_PATH | O_CLOEXEC, .resolve = resolve};
    long fd;
    int tries = 0;
    do /* EAGAIN: something was renamed beneath us while ".." was resolved; the user may do that for ever */
        fd = syscall(NR_OPENAT2, directory, path, &how, sizeof how);
    while (fd < 0 && (errno == EAGAIN || errno == EINTR) && ++tries < 128);
    return (int)fd;
}

enum { WALK_DEPTH = 256 };

struct walk { /* the descriptors from the root down to where the walk stands; entry 0 is the root, not ours to close */
    int fds[WALK_DEPTH];
    size_t depth;
};

static void walk_up(struct walk *w, size_t to)
{
    while (w->depth > to)
        (void)close(w->fds[w->depth--]);
}

/* Takes one component: descends, climbs, or answers 1 with `link` filled when it is a symbolic link. */
static int walk_component(struct walk *w, const char *name, char link[PATH_MAX], kernel_visit *visit, void *context)
{
    struct stat st = {0};
    if (name[0] == '\0')
        return 0;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        if (fstatat(w->fds[w->depth], ".", &st, 0) < 0) /* ENOTDIR: a file has neither */
            return -1;
        walk_up(w, w->depth > 0 && name[1] == '.' ? w->depth - 1 : w->depth);
        return 0;
    }
    errno = ENAMETOOLONG;
    int fd = w->depth + 1 == WALK_DEPTH ? -1 : openat(w->fds[w->depth], name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int failed = fd < 0 || fstat(fd, &st) < 0;
    ssize_t length = !failed && S_ISLNK(st.st_mode) ? readlinkat(fd, "", link, PATH_MAX - 1) : 0;
    failed = failed || length < 0;
    if ((visit != NULL && visit(context, failed ? -1 : fd, &st, name) < 0) || failed) {
        int saved = errno;
        if (fd >= 0)
            (void)close(fd);
        errno = saved;
        return -1;
    }
    link[length] = '\0';
    if (S_ISLNK(st.st_mode))
        return close(fd) == 0 ? 1 : -1;
    w->fds[++w->depth] = fd;
    return 0;
}

int kernel_walk(int root, const char *path, int links, kernel_visit *visit, void *context)
{
    struct walk w = {.fds = {root}};
    char pending[PATH_MAX], link[PATH_MAX], joined[PATH_MAX];
    int result = -1;
    if (snprintf(pending, sizeof pending, "%s", path) >= (int)sizeof pending) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (char *next = pending; next != NULL;) {
        char *name = next, *slash = strchr(next, '/');
        next = slash != NULL ? slash + 1 : NULL;
        if (slash != NULL)
            *slash = '\0';
        int kind = walk_component(&w, name, link, visit, context);
        if (kind < 0)
            goto done;
        if (kind == 0)
            continue;
        if (links-- == 0) {
            errno = ELOOP;
            goto done;
        }
        if (snprintf(joined, sizeof joined, "%s/%s", link, next != NULL ? next : "") >= (int)sizeof joined) {
            errno = ENAMETOOLONG;
            goto done;
        }
        if (link[0] == '/')
            walk_up(&w, 0);
        memcpy(pending, joined, sizeof pending);
        next = pending;
    }
    result = w.depth > 0 ? w.fds[w.depth--] : openat(root, ".", O_PATH | O_CLOEXEC);
done:;
    int saved = errno;
    walk_up(&w, 0);
    errno = saved;
    return result;
}

int kernel_open_in_root(int root, const char *path, int links)
{
    uint64_t resolve = RESOLVE_AS_ROOT | (links == 0 ? RESOLVE_NO_MAGIC | RESOLVE_NO_LINKS : RESOLVE_NO_MAGIC);
    int fd = openat2_path(root, path[0] == '\0' ? "." : path, resolve);
    return fd < 0 && errno == ENOSYS ? kernel_walk(root, path, links, NULL, NULL) : fd;
}

int kernel_open_no_symlinks(const char *path)
{
    int fd = openat2_path(AT_FDCWD, path, RESOLVE_NO_LINKS | RESOLVE_NO_MAGIC);
    if (fd >= 0 || errno != ENOSYS)
        return fd;
    CLEANUP_CLOSE int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return root < 0 ? -1 : kernel_walk(root, path, 0, NULL, NULL);
}

int kernel_clone_mount(int fd, bool recursive)
{
    unsigned flags = TREE_CLONE | EMPTY_PATH | O_CLOEXEC | (recursive ? TREE_RECURSIVE : 0U);
    return (int)syscall(NR_OPEN_TREE, fd, "", flags);
}

int kernel_change_mount(int fd, bool recursive, unsigned attributes, enum mount_propagation propagation)
{
    static const uint64_t types[] = {
        [PROPAGATE_PRIVATE] = MS_PRIVATE, [PROPAGATE_SLAVE] = MS_SLAVE, [PROPAGATE_UNCHANGED] = 0};
    struct attribute_request request = {.set = attributes, .propagation = types[propagation]};
    unsigned flags = EMPTY_PATH | (recursive ? TREE_RECURSIVE : 0U);
    return (int)syscall(NR_MOUNT_SETATTR, fd, "", flags, &request, sizeof request);
}

int kernel_attach_mount(int mount, int target)
{
    return (int)syscall(NR_MOVE_MOUNT, mount, "", target, "", MOVE_FROM_EMPTY_PATH | MOVE_TO_EMPTY_PATH);
}

int kernel_enter_root(int root)
{
    struct stat wanted, entered;
    if (fchdir(root) < 0)
        return -1;
    if (syscall(SYS_pivot_root, ".", ".") == 0) { /* stacks the old root on the new one: pivot_root(2), NOTES */
        if (umount2(".", MNT_DETACH) < 0)
            return -1;
    } else if (errno != EINVAL || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0) {
        return -1;
    }
    if (fstat(root, &wanted) < 0 || chdir("/") < 0 || stat("/", &entered) < 0)
        return -1;
    errno = EXDEV; /* the host's tree: nothing that follows would notice */
    return wanted.st_dev == entered.st_dev && wanted.st_ino == entered.st_ino ? 0 : -1;
}

static int close_listed(unsigned first, unsigned last)
{
    DIR *listing = opendir("/proc/self/fd");
    if (listing == NULL)
        return -1;
    unsigned own = (unsigned)dirfd(listing);
    struct dirent *entry;
    while ((entry = readdir(listing)) != NULL) {
        char *end;
        unsigned long fd = strtoul(entry->d_name, &end, 10);
        if (end != entry->d_name && *end == '\0' && fd >= first && fd <= last && fd != own)
            (void)close((int)fd);
    }
    return closedir(listing);
}

int kernel_close_range(unsigned first, unsigned last)
{
    if (first > last)
        return 0;
    if (syscall(NR_CLOSE_RANGE, first, last, 0) == 0)
        return 0;
    return errno == ENOSYS ? close_listed(first, last) : -1;
}

struct kernel_fd_path kernel_fd_path(int fd)
{
    struct kernel_fd_path path;
    (void)snprintf(path.text, sizeof path.text, "/proc/self/fd/%d", fd);
    return path;
}
