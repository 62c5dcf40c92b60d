/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Prolog and epilog on each node of a job, as root (spec: Slurm contract, sections 7 and 10).
 */
#ifndef SHIFTER_SPANK_JOB_SCRIPT_H
#define SHIFTER_SPANK_JOB_SCRIPT_H

#include <slurm/spank.h>

/* Prepares the job's container with setupRoot, held by "<job id>@<node>". What fails is logged; the job then starts its
 * containers without. Nothing to do and nothing logged for a job without --image. */
void job_prolog(spank_t spank);
/* Takes the job's hold off what job_prolog prepared. */
void job_epilog(spank_t spank);

#endif
