/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The words of the plug-in's line in plugstack.conf and the user's options (spec: Slurm contract, sections 2 and 3).
 */
#ifndef SHIFTER_SPANK_OPTIONS_H
#define SHIFTER_SPANK_OPTIONS_H

#include <slurm/spank.h>
#include <stdbool.h>

#include "error.h"

enum { IMAGE_TEXT_LIMIT = 1024 }; /* the longest reference: host, repository (255), tag (128), digest (71) */

/* Takes over the words that change what the plug-in does; silent. */
void options_configure(int count, char **words);
/* Logs the words that it does not know or cannot serve yet. */
void options_report(int count, char **words);
void options_register(spank_t spank);

/* What --image says after option processing, NULL when there is none; on the submit side it has been checked. */
const char *options_image(void);
/* Was --image given? For prolog and epilog, where no callback runs. */
bool options_image_was_given(spank_t spank);
/* Slurm's own variable that carries --image as typed into the job. */
const char *options_image_variable(void);

/* The text of --image as far as it concerns us: the grammar of the reference itself is the client's. */
int options_check_image(const char *text, struct error *e);

#endif
