/* SPDX-License-Identifier: BSD-3-Clause
 *
 * System calls that the C library may not wrap, each with a fallback that is as strict where kernels since 4.18 differ.
 * Functions return -1 with errno, like the calls they stand for; the callers know the object and write the message.
 * The constants are the kernel's ABI (linux/mount.h, linux/openat2.h, man pages open_tree(2), mount_setattr(2),
 * openat2(2)); those headers and <sys/mount.h> cannot be included together everywhere.
 */
#ifndef SHIFTER_KERNEL_H
#define SHIFTER_KERNEL_H

#include <stdbool.h>
#include <sys/stat.h>

#include "as_user/attributes.h"

enum { KERNEL_LINKS = 40 }; /* as many as the kernel follows: path_resolution(7) */

/* Opens `path` O_PATH as if `root` were "/": symlinks and ".." cannot leave it, magic links are not followed. `links`:
 * KERNEL_LINKS, or 0: then a symlink in any component is ELOOP. */
int kernel_open_in_root(int root, const char *path, int links);
/* Opens an absolute path O_PATH; a symlink in any component is ELOOP. */
int kernel_open_no_symlinks(const char *path);

/* What those two do without openat2(2), with at most `links` symbolic links followed. `visit`, which may be NULL, is
 * shown each component but "." and ".." as it is reached, links too; -1 ends the walk. `fd` is -1 with errno when it
 * cannot be opened. */
typedef int kernel_visit(void *context, int fd, const struct stat *st, const char *name);
int kernel_walk(int root, const char *path, int links, kernel_visit *visit, void *context);

/* A detached copy of the mount (with submounts when `recursive`) that shows the directory or file `fd`; ENOSYS on old
 * kernels. */
int kernel_clone_mount(int fd, bool recursive);
/* Adds attributes to the mount behind `fd` and sets its propagation; ENOSYS on old kernels. */
int kernel_change_mount(int fd, bool recursive, unsigned attributes, enum mount_propagation propagation);
/* Attaches a detached mount on top of the directory or file `target`. */
int kernel_attach_mount(int mount, int target);

/* Makes `root`, a mount point, the root of this mount namespace and detaches the old root, also where the old root is
 * the kernel's initial ramfs, which pivot_root(2) cannot move. */
int kernel_enter_root(int root);

/* Closes the descriptors first..last. */
int kernel_close_range(unsigned first, unsigned last);

/* "/proc/self/fd/N": the name of an open descriptor for calls that only take paths. */
struct kernel_fd_path {
    char text[32];
};
struct kernel_fd_path kernel_fd_path(int fd);

#endif
