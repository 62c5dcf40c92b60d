/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/nodecache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "as_root/hooks.h"
#include "as_root/loop.h"
#include "as_root/trust.h"
#include "base/text.h"

enum {
    MKFS_SECONDS = 60,
    BLOCK = 4096,
    MOST_OF_USER = 256,    /* caches on a node */
    MOST_MARGIN = 1 << 20, /* kibibytes of a file system that no cache may take, or a tenth of it */
    TRIES = 20             /* a tenth of a second each: the kernel is late with what has just been let go */
};

/* On file systems without O_TMPFILE the file has a name, which only root can see, for a moment while it is empty. */
static int make_nameless(int directory, uid_t uid)
{
    int fd = openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
        return fd;
    CLEANUP_FREE char *name = text_format("perNodeCache_uid%u_%d", (unsigned)uid, (int)getpid());
    (void)unlinkat(directory, name, 0); /* of a process that died in such a moment */
    fd = openat(directory, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        (void)unlinkat(directory, name, 0);
    return fd;
}

/* Sparse. It belongs to the user, so that what he writes counts as his where the site has quotas; he cannot open it. */
static int make_file(const struct config *config, const struct caller *caller, uint64_t size, struct error *e)
{
    CLEANUP_CLOSE int directory = trust_open_directory(config->per_node_cache_path, 0, "root", "perNodeCachePath", e);
    if (directory < 0)
        return -1;
    int fd = make_nameless(directory, caller->uid);
    if (fd < 0)
        return error_set(e, errno, "cannot make a file in %s (perNodeCachePath)", config->per_node_cache_path);
    if (fchown(fd, caller->uid, caller->gid) == 0 && ftruncate(fd, (off_t)(size - size % BLOCK)) == 0)
        return fd;
    (void)error_set(e, errno, "cannot make a cache of %" PRIu64 " bytes in %s (perNodeCachePath)", size,
                    config->per_node_cache_path);
    (void)close(fd);
    return -1;
}

/* All caches of the user on this node together, his new one included, must find room, as if nothing had been written
 * yet: the files are sparse. There is no lock, with which he could hold up others: of two that come at once both see
 * both. */
static int check_room(const struct config *config, int file, const char *name, struct error *e)
{
    const struct timespec moment = {.tv_nsec = 100000000};
    struct loop_usage usage;
    uint64_t room = 0;
    for (int try = 0; try < TRIES; try++) {
        struct statvfs fs;
        if (fstatvfs(file, &fs) < 0)
            return error_set(e, errno, "cannot examine %s (perNodeCachePath)", config->per_node_cache_path);
        uint64_t tenth = fs.f_blocks * fs.f_frsize / 10240, margin = tenth < MOST_MARGIN ? tenth : MOST_MARGIN;
        room = fs.f_bavail * fs.f_frsize / 1024;
        room = room > margin ? room - margin : 0;
        if (loop_usage(name, &usage, e) < 0)
            return -1;
        if (usage.count <= MOST_OF_USER && usage.kibibytes <= room)
            return 0;
        (void)nanosleep(&moment, NULL);
    }
    return error_set(e, 0,
                     "%s: with this one there would be %u on this node, of %" PRIu64 " KiB; there may be %d, and %s "
                     "(perNodeCachePath) has room for %" PRIu64 " KiB; ask for less, or end other containers",
                     name, usage.count, usage.kibibytes, MOST_OF_USER, config->per_node_cache_path, room);
}

/* As hooks are run: checked, without a shell, with nothing of the user's. He can kill us meanwhile: the device stays
 * open in the program, or its number could be somebody else's by the time the program opens it. */
static int format(const struct config *config, const struct loop *loop, struct error *e)
{
    CLEANUP_CLOSE int directory = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    const char *const arguments[] = {config->mkfs_xfs_path, "-q", "-K", "-f", loop->device, NULL};
    return hook_run("mkfsXfsPath", arguments, directory, loop->fd, MKFS_SECONDS, e);
}

static int give(const char *place, const struct stat *device, const struct caller *caller, struct error *e)
{
    CLEANUP_CLOSE int root = open(place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (root < 0 || fstat(root, &st) < 0)
        return error_set(e, errno, "cannot examine the new cache");
    if (st.st_dev != device->st_rdev)
        return error_set(e, 0, "what was mounted is not the new cache; report this to the administrator");
    return fchown(root, caller->uid, caller->gid) == 0 ? 0 : error_set(e, errno, "cannot give the cache to its user");
}

int nodecache_mount(const struct config *config, const struct caller *caller, uint64_t size, const char *place,
                    struct error *e)
{
    if (size > INT64_MAX)
        return error_set(e, 0, "a cache of %" PRIu64 " bytes is larger than any file", size);
    CLEANUP_FREE char *name = text_format("perNodeCaches of uid %u", (unsigned)caller->uid);
    CLEANUP_CLOSE int file = make_file(config, caller, size, e);
    struct loop loop;
    struct stat st;
    if (file < 0 || loop_attach_new(file, name, &loop, e) < 0)
        return -1;
    CLEANUP_CLOSE int device = loop.fd; /* autoclear: it must stay open until the mount holds it */
    if (fstat(device, &st) < 0)
        return error_set(e, errno, "cannot examine %s", loop.device);
    if (check_room(config, file, name, e) < 0 || format(config, &loop, e) < 0)
        return -1;
    if (mount(loop.device, place, "xfs", MS_NOSUID | MS_NODEV, NULL) < 0)
        return error_set(e, errno, "cannot mount the new cache from %s as xfs", loop.device);
    return give(place, &st, caller, e);
}
