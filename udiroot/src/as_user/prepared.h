/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Nothing names an image: the user means the container that this node is prepared for (spec: runtime contract, 5.2).
 * What that is says the text of its plan (plan_describe); state_plans finds it.
 */
#ifndef SHIFTER_PREPARED_H
#define SHIFTER_PREPARED_H

#include "base/error.h"
#include "base/text.h"

struct prepared { /* as options would say it */
    char *image;   /* id:<id> or local:<path> */
    char *modules; /* "none", or names with commas */
    char *volumes; /* as of volumes_signature */
};

/* The one that all `plans` describe; an error when there is none, and when they are for different requests. */
int prepared_choose(const struct strings *plans, struct prepared *out, struct error *e);
void prepared_free(struct prepared *prepared);

#endif
