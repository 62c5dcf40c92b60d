/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The mount table, bind mounts by descriptor, and the last check before a container is entered.
 */
#ifndef SHIFTER_MOUNTS_H
#define SHIFTER_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

#include "as_root/kernel.h"
#include "base/error.h"

struct plan;

struct mount_entry { /* one line of mountinfo, proc_pid_mountinfo(5); octal escapes decoded */
    unsigned long id, parent;
    char *point;
    unsigned attributes; /* MOUNT_* */
    unsigned long flags; /* the same and more as MS_*: what a remount must repeat on old kernels */
};

struct mount_table {
    struct mount_entry *items; /* in mount order: what covers something comes after it */
    size_t count;
};

/* Reads the table of the calling process below `proc`, a descriptor of a directory that is procfs. */
int mount_table_read(int proc, struct mount_table *out, struct error *e);
int mount_table_parse(const char *text, size_t length, struct mount_table *out, struct error *e);
void mount_table_free(struct mount_table *table);

struct bind {
    int source;          /* descriptor: a directory, or a file */
    int stage;           /* descriptor of a directory of ours on a private mount */
    int target;          /* descriptor of the mount point: a directory, or a file as the source is */
    const char *name;    /* its path in the container, for messages */
    unsigned attributes; /* added to those the source already has (never taken away) */
    bool recursive;
    enum mount_propagation propagation;
};
/* Shows the source at the target, restricted before it can be seen there. `proc` as above. Both are taken by descriptor
 * and no name is looked up again, so nobody can turn either to another place meanwhile. `id`: NULL, or of the
 * new mount. */
int mount_bind(int proc, const struct bind *bind, unsigned long *id, struct error *e);

/* The id of the mount on which `fd` was opened, from its fdinfo; 0 when it cannot be told. */
unsigned long mount_id(int proc, int fd);
/* The path of an open descriptor, as the kernel has it now; NULL with errno. `proc` as above. */
char *mount_name(int proc, int fd);
/* Moves every mount that lies on the mount `from`, with what lies on it, to the same place on the mount `to`. */
int mounts_move(int proc, int from, int to, struct error *e);

/* Checks, in the container's mount namespace, that each mount has the attributes that the plan asks for at its place,
 * or nosuid and nodev where it asks for none. What a mount lacks that came later, through slave propagation, is
 * added; what cannot be is an error. */
int mounts_verify(int proc, const struct plan *plan, struct error *e);

#endif
