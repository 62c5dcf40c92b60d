/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/shown.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>

#include "as_root/etcfiles.h"
#include "as_root/kernel.h"
#include "as_root/mounts.h"
#include "as_root/rootfs.h"
#include "base/text.h"

/* Mounts that share with nobody, but with whatever copies are made of them. */
static int set_apart(int fd, const struct prepare *s, struct error *e)
{
    const struct kernel_fd_path name = kernel_fd_path(fd);
    if (mount(NULL, name.text, NULL, MS_PRIVATE | MS_REC, NULL) == 0 &&
        mount(NULL, name.text, NULL, MS_SHARED | MS_REC, NULL) == 0)
        return 0;
    return error_set(e, errno, "cannot set the mounts at %s apart", s->config->udi_mount);
}

/* Is a tree shown there, or anything else mounted? -1 on error. */
static int is_occupied(const struct prepare *s, int proc, struct error *e)
{
    struct mount_table table;
    if (mount_table_read(proc, &table, e) < 0)
        return -1;
    bool occupied = false;
    for (size_t i = 0; i < table.count && !occupied; i++)
        occupied = path_is_below(table.items[i].point, s->config->udi_mount);
    mount_table_free(&table);
    return occupied;
}

int shown_check(const struct prepare *s, int proc, struct error *e)
{
    int occupied = is_occupied(s, proc, e);
    if (occupied != 0)
        return occupied < 0 ? -1 : 0;
    CLEANUP_CLOSE int bare = rootfs_open_udi_mount(s->config, e);
    if (bare < 0)
        return -1;
    int copy = openat(bare, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = copy < 0 ? NULL : fdopendir(copy);
    if (listing == NULL)
        return error_set(e, errno, "cannot list udiMount %s", s->config->udi_mount);
    const struct dirent *entry;
    while ((entry = readdir(listing)) != NULL && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0))
        continue;
    int result = entry == NULL ? 0
                               : error_set(e, 0, "udiMount %s is not empty: a container would hide '%s' in it; name a "
                                                 "directory of shifter's own in udiRoot.conf, or empty this one",
                                           s->config->udi_mount, entry->d_name);
    (void)closedir(listing);
    return result;
}

int shown_attach(const struct prepare *s, int proc, int environment, int tree, struct error *e)
{
    int occupied = is_occupied(s, proc, e);
    if (occupied != 0)
        return occupied < 0 ? -1 : 0;
    CLEANUP_CLOSE int bare = rootfs_open_udi_mount(s->config, e);
    if (bare < 0 || upper_write(environment, "shown", "", 0, e) < 0)
        return -1;
    /* Attached to a shared mount, the tree would be copied to all its peers and slaves. So its parent is a mount of
     * ours that shares with nobody who is there. Who unshares later has a copy all the same: that goes when this one
     * does, if it is a peer or a slave of it and not private. */
    const struct kernel_fd_path name = kernel_fd_path(bare);
    if (mount(name.text, name.text, NULL, MS_BIND, NULL) < 0)
        return error_set(e, errno, "cannot prepare %s for the container", s->config->udi_mount);
    CLEANUP_CLOSE int target = rootfs_open_udi_mount(s->config, e);
    if (target < 0 || set_apart(target, s, e) < 0)
        return -1;
    if (kernel_attach_mount(tree, target) < 0)
        return error_set(e, errno, "cannot show the container at %s", s->config->udi_mount);
    return set_apart(tree, s, e);
}
