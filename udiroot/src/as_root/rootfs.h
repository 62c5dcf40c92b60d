/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Executes a plan: the only code that builds a container, for `shifter` and `setupRoot` alike.
 */
#ifndef SHIFTER_ROOTFS_H
#define SHIFTER_ROOTFS_H

#include "as_user/plan.h"
#include "base/error.h"

/* Opens /proc O_PATH and makes sure that it is procfs: what we read there must come from the kernel. */
int rootfs_open_proc(struct error *e);

/* Leaves the calling process in a new mount namespace whose root is the container, every mount of it verified. On
 * failure the namespace is thrown away with the process; nothing remains. */
int rootfs_build(const struct plan *plan, const struct plan_subject *subject, int proc, struct error *e);

/* The directory udiMount of the host: made when missing, no symlink in its path, root's alone. */
int rootfs_open_udi_mount(const struct config *config, struct error *e);

#endif
