/* SPDX-License-Identifier: BSD-3-Clause
 *
 * shifter_slurm.so, the SPANK plug-in (spec: Slurm contract; docs/slurm.md): what Slurm calls, and in which context
 * (spank(7)) it does something. One file per context: submit.c on the user's side, job_script.c in prolog and epilog.
 * slurmstepd (the remote context) has to know the options and takes a secret out of the job's environment: tasks
 * enter the container when they say `shifter`.
 *
 * A hook never fails and never ends its process: Slurm would take a node out of service for a failed prolog, and every
 * command of the site loads us. The exception is what the user asked for himself and cannot get, before anything is
 * queued: a plug-in that is only `optional` has no other way to stop the submission.
 */
#include <stdlib.h>

#pragma GCC visibility push(default) /* the hooks are declared here */
#include <slurm/spank.h>
SPANK_PLUGIN(shifter, 1)
#pragma GCC visibility pop

#include "job_script.h"
#include "options.h"
#include "submit.h"

enum { EXIT_SUBMIT = 255 }; /* contract, section 15; also Slurm's own status for an option that it refuses */

int slurm_spank_init(spank_t spank, int count, char **words)
{
    options_configure(count, words);
    switch (spank_context()) {
    case S_CTX_ALLOCATOR: /* sbatch, salloc */
    case S_CTX_LOCAL:     /* srun */
    case S_CTX_REMOTE:    /* slurmstepd */
        options_register(spank);
        break;
    case S_CTX_SLURMD: /* once per daemon: where a site looks for what is wrong with its plugstack.conf */
        options_report(count, words);
        break;
    default: break;
    }
    return ESPANK_SUCCESS;
}

int slurm_spank_init_post_opt(spank_t spank, int count, char **words)
{
    (void)count, (void)words;
    struct error e;
    spank_context_t context = spank_context();
    if ((context == S_CTX_ALLOCATOR || context == S_CTX_LOCAL) && submit(spank, context == S_CTX_LOCAL, &e) < 0) {
        slurm_error("shifter: %s", e.text);
        exit(EXIT_SUBMIT);
    }
    if (context == S_CTX_REMOTE)
        submit_forget_secret(spank);
    return ESPANK_SUCCESS;
}

int slurm_spank_job_prolog(spank_t spank, int count, char **words)
{
    options_configure(count, words); /* init is not called in this context */
    job_prolog(spank);
    return ESPANK_SUCCESS;
}

int slurm_spank_job_epilog(spank_t spank, int count, char **words)
{
    options_configure(count, words);
    job_epilog(spank);
    return ESPANK_SUCCESS;
}
