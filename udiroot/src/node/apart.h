/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Building a prepared environment in a process of its own. A file system that a user brings can keep a process waiting
 * that not even SIGKILL ends (fuse(4)), and a prolog must end.
 */
#ifndef SHIFTER_APART_H
#define SHIFTER_APART_H

#include "as_user/plan.h"
#include "base/error.h"

/* Descriptors of the container's namespace and of a copy of its tree (-1 on old kernels). When the process that
 * builds has not ended in time, it is killed and left alone, with copies of all descriptors that we have now. */
int apart_build(const struct plan *plan, const struct plan_subject *subject, int proc, int *container, int *tree,
                struct error *e);

#endif
