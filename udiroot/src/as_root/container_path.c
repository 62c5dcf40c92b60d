/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/container_path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "as_root/kernel.h"
#include "as_root/mounts.h"
#include "base/text.h"

/* The state is taken with the same rights: on a user's own file system root may have none. */
static int open_as(const struct container *c, const char *path, enum volume_origin origin, int links, struct stat *st)
{
    if (origin == VOLUME_OF_USER)
        privilege_as_user(c->caller);
    int fd = kernel_open_in_root(c->root, path, links);
    int failure = fd < 0 || fstat(fd, st) < 0 ? errno : 0;
    if (origin == VOLUME_OF_USER)
        privilege_as_root();
    if (failure != 0 && fd >= 0)
        (void)close(fd);
    errno = failure;
    return failure != 0 ? -1 : fd;
}

void container_end(struct container *c)
{
    free(c->own.ids);
}

/* The path of an open descriptor as the container will see it. */
static char *location(const struct container *c, int fd, const char *path, struct error *e)
{
    CLEANUP_FREE char *name = mount_name(c->proc, fd), *root = mount_name(c->proc, c->root);
    if (name == NULL || root == NULL) {
        (void)error_set(e, errno, "cannot find out where %s is in the container", path);
        return NULL;
    }
    if (!path_is_below(name, root)) {
        (void)error_set(e, 0, "%s was moved out of the container", path);
        return NULL;
    }
    const char *rest = name + strlen(root);
    return text_copy(*rest != '\0' ? rest : "/");
}

int container_open_source(const struct container *c, const char *path, struct error *e)
{
    struct stat st;
    int fd = open_as(c, path, VOLUME_OF_USER, KERNEL_LINKS, &st);
    if (fd < 0)
        return error_set(e, errno, "cannot open volume source %s in the container with your rights", path);
    CLEANUP_FREE char *real = location(c, fd, path, e);
    if (real != NULL && strcmp(real, "/") != 0 && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)))
        return fd;
    (void)close(fd);
    if (real == NULL)
        return -1;
    if (strcmp(real, "/") == 0)
        return error_set(e, 0, "volume source %s is the whole container; name a directory in it", path);
    return error_set(e, 0, "volume source %s is neither a directory nor a file", path);
}

/* Nobody else runs here, but what the site shows must stay what the site shows: W-7, W-8. */
static int check_owner(const struct container *c, int fd, const struct stat *st, const char *path, struct error *e)
{
    unsigned long id = mount_id(c->proc, fd);
    if (id == 0)
        return error_set(e, errno, "cannot tell which mount %s is on", path);
    if (st->st_uid == c->caller->uid || id == mount_id(c->proc, c->root))
        return 0;
    /* Of the second the rules let only itself be covered. */
    static const char *const everybodys[] = {"/tmp", "/var/tmp"};
    for (size_t i = 0; i < sizeof everybodys / sizeof everybodys[0]; i++) {
        CLEANUP_CLOSE int tmp = kernel_open_in_root(c->root, everybodys[i], KERNEL_LINKS);
        if (tmp >= 0 && id == mount_id(c->proc, tmp))
            return 0;
    }
    for (size_t i = 0; i < c->own.count; i++)
        if (id == c->own.ids[i])
            return 0;
    return error_set(e, 0,
                     "%s is on a file system that the node shows and does not belong to you; choose a volume target in "
                     "the image, in /tmp or in a directory of yours",
                     path);
}

/* Creates `name` in the open directory, and opens it. */
static int create(int within, const char *name, const char *path, bool directory, struct error *e)
{
    int made = directory ? mkdirat(within, name, 0755) : 0;
    int flags = directory ? O_PATH | O_DIRECTORY : O_RDONLY | O_CREAT | O_EXCL;
    int fd = made < 0 ? -1 : openat(within, name, flags | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd >= 0)
        return fd;
    if (errno == EEXIST)
        return error_set(e, 0, "%s leads over a dangling symbolic link in the container; nothing can be mounted there",
                         path);
    return error_set(e, errno, "cannot create %s in the container", path);
}

/* Only in the overlay's upper layer: never on a file system of the host, whatever links the image holds. */
static int check_creatable(const struct container *c, const struct stat *within, const char *path, struct error *e)
{
    struct stat root;
    if (fstat(c->root, &root) < 0)
        return error_set(e, errno, "cannot examine the container's root");
    return within->st_dev == root.st_dev
               ? 0
               : error_set(e, 0,
                           "%s does not exist in what is mounted above it in the container, and nothing is created "
                           "there; create it on the host",
                           path);
}

/* Creates the components `missing` of `path` in the open directory `fd`, which it takes over. */
static int create_missing(int fd, const char *path, const char *missing, bool directory, struct error *e)
{
    while (fd >= 0 && *missing != '\0') {
        const char *end = strchrnul(missing + 1, '/');
        CLEANUP_FREE char *name = text_copy_n(missing + 1, (size_t)(end - missing - 1));
        int made = create(fd, name, path, *end != '\0' || directory, e);
        (void)close(fd);
        fd = made;
        missing = end;
    }
    return fd;
}

static int check_place(const struct container *c, int fd, const char *path, const char *missing,
                       enum volume_origin origin, struct error *e)
{
    struct error cause;
    CLEANUP_FREE char *real = location(c, fd, path, e);
    if (real == NULL)
        return -1;
    CLEANUP_FREE char *whole = text_format("%s%s", strcmp(real, "/") == 0 && *missing != '\0' ? "" : real, missing);
    if (c->exact && strcmp(whole, path) != 0)
        return error_set(e, 0,
                         "%s leads to %s in the container, over a link of the image; a hook that works there would be "
                         "led astray, so where hooks follow a directory can only be mounted at a path without links",
                         path, whole);
    if (volumes_check_target(whole, origin, &cause) == 0)
        return 0;
    return error_set(e, 0, "%s leads to %s in the container: %s", path, whole, cause.text);
}

static int check_existing(const struct container *c, int fd, const struct stat *st, const char *path, bool directory,
                          enum volume_origin origin, struct error *e)
{
    if (S_ISDIR(st->st_mode) != directory)
        return error_set(e, 0, "%s is a %s in the container, but what is to be mounted there is a %s", path,
                         directory ? "file" : "directory", directory ? "directory" : "file");
    return origin == VOLUME_OF_USER ? check_owner(c, fd, st, path, e) : 0;
}

int container_open_target(const struct container *c, const char *path, bool directory, enum volume_origin origin,
                          struct error *e)
{
    CLEANUP_FREE char *existing = text_copy(path);
    struct stat st;
    /* Where no link leads on, a path of the site's is the place. Where a user's is can change until it is open. */
    int fd, links = origin == VOLUME_OF_USER ? KERNEL_LINKS : 0;
    while ((fd = open_as(c, existing, origin, links, &st)) < 0 && existing[0] != '\0') {
        if (errno == ENOENT)
            *strrchr(existing, '/') = '\0';
        else if (errno == ELOOP && links == 0)
            links = KERNEL_LINKS;
        else
            break;
    }
    if (fd < 0)
        return error_set(e, errno, "cannot resolve %s in the container%s", path,
                         origin == VOLUME_OF_USER ? " with your rights" : "");
    const char *missing = path + strlen(existing);
    int result = links == 0 ? 0 : check_place(c, fd, path, missing, origin, e);
    if (result == 0)
        result = *missing != '\0' ? check_creatable(c, &st, path, e)
                                  : check_existing(c, fd, &st, path, directory, origin, e);
    if (result == 0)
        return create_missing(fd, path, missing, directory, e);
    (void)close(fd);
    return -1;
}
