/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/image_local.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "as_root/kernel.h"
#include "as_root/mounts.h"
#include "base/text.h"

enum { MOST_ENTRIES = 4096 };

struct merge {
    const struct container *container;
    int stage;
    dev_t scratch;      /* what is on it is the container itself */
    unsigned long root; /* id of the mount that is the container's root */
    size_t entries;     /* so far */
};

/* With the present rights. A magic link of /proc would lead to what root has open in this process, or to where it
 * stands. The dot has an automounter mount what it names. */
static int open_top(const char *path)
{
    CLEANUP_FREE char *itself = text_format("%s/.", path);
    CLEANUP_CLOSE int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_CLOSE int handle = root < 0 ? -1 : kernel_open_in_root(root, itself, KERNEL_LINKS);
    return handle < 0 ? -1 : openat(handle, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int image_local_open(const struct config *config, const char *path, struct image *out, struct error *e)
{
    if (image_local_describe(config, path, out, e) < 0)
        return -1;
    CLEANUP_CLOSE int fd = open_top(path);
    return fd >= 0 ? 0 : error_set(e, errno, "cannot open the directory %s of the local: image with your rights", path);
}

/* The entry, not what it may be a link to, with the user's rights; `link` is filled when it is one. */
static int open_entry(const struct merge *m, int directory, const char *name, struct stat *st, char link[PATH_MAX])
{
    privilege_as_user(m->container->caller);
    int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int failure = fd < 0 || fstat(fd, st) < 0 ? errno : 0;
    ssize_t length = failure == 0 && S_ISLNK(st->st_mode) ? readlinkat(fd, "", link, PATH_MAX - 1) : 0;
    if (length < 0)
        failure = errno;
    privilege_as_root();
    if (failure != 0 && fd >= 0)
        (void)close(fd);
    link[length > 0 ? length : 0] = '\0';
    errno = failure;
    return failure != 0 ? -1 : fd;
}

/* The names in a directory, read with the user's rights. */
static int list(struct merge *m, int directory, const char *path, struct strings *names, struct error *e)
{
    privilege_as_user(m->container->caller);
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    int failure = errno;
    struct dirent *entry;
    while (listing != NULL && m->entries <= MOST_ENTRIES && (entry = readdir(listing)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            strings_add(names, entry->d_name);
            m->entries++;
        }
    if (listing != NULL)
        (void)closedir(listing);
    privilege_as_root();
    if (listing == NULL)
        return error_set(e, failure, "cannot list %s of the local: image with your rights", path);
    if (m->entries <= MOST_ENTRIES)
        return 0;
    return error_set(e, 0, "the local: image has more than %d entries where the container has directories too, at %s",
                     MOST_ENTRIES, path);
}

static int bind_entry(const struct merge *m, int source, bool is_directory, int within, const char *path,
                      struct error *e)
{
    const char *name = strrchr(path, '/') + 1;
    int made = is_directory ? mkdirat(within, name, 0755) : mknodat(within, name, S_IFREG | 0644, 0);
    CLEANUP_CLOSE int target = made < 0 ? -1 : openat(within, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (target < 0)
        return error_set(e, errno, "cannot create %s in the container", path);
    struct bind bind = {.source = source,
                        .stage = m->stage,
                        .target = target,
                        .name = path,
                        .attributes = MOUNT_NO_SUID | MOUNT_NO_DEVICES,
                        .propagation = PROPAGATE_PRIVATE};
    return mount_bind(m->container->proc, &bind, NULL, e);
}

static int merge_directory(struct merge *m, int source, int target, const char *path, struct error *e);

/* What the site has at `path` stays. */
static int merge_into_existing(struct merge *m, int source, bool is_directory, int within, const char *path,
                               struct error *e)
{
    CLEANUP_CLOSE int target = openat(within, strrchr(path, '/') + 1, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (!is_directory || target < 0 || mount_id(m->container->proc, target) != m->root)
        return 0;
    return merge_directory(m, source, target, path, e);
}

static int merge_entry(struct merge *m, int directory, int within, const char *path, struct error *e)
{
    const char *name = strrchr(path, '/') + 1;
    char link[PATH_MAX];
    struct stat st, there;
    CLEANUP_CLOSE int source = open_entry(m, directory, name, &st, link);
    if (source < 0 && (errno == ENOENT || errno == EACCES)) /* gone, or of no use to the user */
        return 0;
    if (source < 0)
        return error_set(e, errno, "cannot open %s of the local: image with your rights", path);
    if (st.st_dev == m->scratch)
        return 0;
    if (fstatat(within, name, &there, AT_SYMLINK_NOFOLLOW) == 0)
        return merge_into_existing(m, source, S_ISDIR(st.st_mode), within, path, e);
    if (!S_ISLNK(st.st_mode))
        return bind_entry(m, source, S_ISDIR(st.st_mode), within, path, e);
    return symlinkat(link, within, name) == 0 ? 0 : error_set(e, errno, "cannot create %s in the container", path);
}

static int merge_directory(struct merge *m, int source, int target, const char *path, struct error *e)
{
    struct strings names = {0};
    int result = list(m, source, *path != '\0' ? path : "/", &names, e);
    for (size_t i = 0; i < names.count && result == 0; i++) {
        CLEANUP_FREE char *entry = text_format("%s/%s", path, names.items[i]);
        result = merge_entry(m, source, target, entry, e);
    }
    strings_free(&names);
    return result;
}

int image_local_top(const struct caller *caller, const char *path, struct error *e)
{
    privilege_as_user(caller);
    int fd = open_top(path), failure = errno;
    privilege_as_root();
    return fd >= 0 ? fd : error_set(e, failure, "cannot open the local: image %s with your rights", path);
}

int image_local_merge(const struct container *c, int stage, int top, struct error *e)
{
    struct stat st;
    struct merge merge = {.container = c, .stage = stage, .root = mount_id(c->proc, c->root)};
    if (merge.root == 0 || fstat(stage, &st) < 0)
        return error_set(e, errno, "cannot examine the container's root");
    merge.scratch = st.st_dev;
    return merge_directory(&merge, top, c->root, "", e);
}
