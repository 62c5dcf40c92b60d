/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What a step of a plan says of its mount, in the words in which as_root/kernel.h does it.
 */
#ifndef SHIFTER_ATTRIBUTES_H
#define SHIFTER_ATTRIBUTES_H

enum {                           /* attributes a mount can be given; never taken away */
       MOUNT_READ_ONLY = 1 << 0, /* the values are MOUNT_ATTR_* of linux/mount.h */
       MOUNT_NO_SUID = 1 << 1,
       MOUNT_NO_DEVICES = 1 << 2,
       MOUNT_NO_EXEC = 1 << 3
};

enum mount_propagation { PROPAGATE_PRIVATE, PROPAGATE_SLAVE, PROPAGATE_UNCHANGED };

#endif
