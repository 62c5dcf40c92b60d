/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The nodes of a job for setupRoot -N (spec: Slurm contract, section 12), from what slurmd tells the prolog.
 */
#ifndef SHIFTER_SPANK_HOSTS_H
#define SHIFTER_SPANK_HOSTS_H

#include "base/error.h"

/* "n[1-3]" and "4(x2),2" become "n1/4 n2/4 n3/2", in allocation order; free(3) the result. `cpus` is NULL where slurmd
 * does not tell: then each node counts once. NULL and an error when the two do not fit together. */
char *hosts_from_slurm(const char *nodes, const char *cpus, struct error *e);

#endif
