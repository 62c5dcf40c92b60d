/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The submit side (sbatch, salloc, srun), as the user: --image becomes an immutable id, once per job (spec: Slurm
 * contract, sections 5 and 6).
 */
#ifndef SHIFTER_SPANK_SUBMIT_H
#define SHIFTER_SPANK_SUBMIT_H

#include <slurm/spank.h>
#include <stdbool.h>

#include "base/error.h"

/* Puts the id of the wanted image into the job's and, for srun (`local`), the step's environment; nothing to do without
 * --image. Fails, before anything is queued, when the image cannot be resolved. */
int submit(spank_t spank, bool local, struct error *e);

/* In slurmstepd: the secret that the job's sshd is made from goes no further. `env` of a job is shown to people. */
void submit_forget_secret(spank_t spank);

#endif
