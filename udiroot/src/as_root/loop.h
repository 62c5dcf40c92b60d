/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Loop devices, shared by every container of a node that shows the same image. The kernel gives one superblock, and so
 * one page cache, to all read-only mounts of one block device: nothing else needs to be kept, neither registry nor
 * daemon. The device is autoclear: it goes with its last mount.
 */
#ifndef SHIFTER_LOOP_H
#define SHIFTER_LOOP_H

#include <stdint.h>
#include <sys/stat.h>

#include "base/error.h"

struct loop {
    int fd;          /* open on the device; it stays configured while this is open */
    char device[32]; /* "/dev/loopN" */
};

struct loop_usage {
    unsigned count;
    uint64_t kibibytes; /* the sizes of the devices together */
};

/* A read-only autoclear loop device whose backing inode is the file `image_fd` in the state `image`: an existing one,
 * else a new one. `name` is for messages. The caller mounts it and then closes `fd`. */
int loop_attach(int image_fd, const struct stat *image, const char *name, struct loop *out, struct error *e);
/* A new autoclear loop device that can be written, for `file_fd`, which is open for that; else the same. */
int loop_attach_new(int file_fd, const char *name, struct loop *out, struct error *e);
/* The devices of that name. Only root can give a device a name. */
int loop_usage(const char *name, struct loop_usage *usage, struct error *e);

#endif
