/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The words of the plug-in's line in plugstack.conf and the user's options (spec: Slurm contract, sections 2 and 3).
 */
#ifndef SHIFTER_SPANK_OPTIONS_H
#define SHIFTER_SPANK_OPTIONS_H

#include <slurm/spank.h>
#include <stdbool.h>

#include "base/error.h"

enum { OPTION_TEXT_LIMIT = 1024 }; /* the longest reference: host, repository (255), tag (128), digest (71) */
enum options_name { OPTION_IMAGE, OPTION_MODULE, OPTION_VOLUME, OPTIONS };

/* Takes over the words that change what the plug-in does; silent. */
void options_configure(int count, char **words);
/* Logs the words that it does not know or cannot serve yet. */
void options_report(int count, char **words);
/* Does the site want an sshd in the containers of its jobs (enable_sshd=1)? */
bool options_sshd_is_enabled(void);
void options_register(spank_t spank);

/* What --image, --module or --volume says after option processing, NULL when there is none; on the submit side it has
 * been checked as far as that needs no configuration. */
const char *options_text(enum options_name name);
/* The option as users write it on this site, without the dashes. */
const char *options_name(enum options_name name);
/* Was --image given? For prolog and epilog, where no callback runs. */
bool options_image_was_given(spank_t spank);
/* Slurm's own variable that carries an option as typed into the job; good until the next call. */
const char *options_variable(enum options_name name);

/* The text of --image as far as it concerns us: the grammar of the reference itself is the client's. */
int options_check_image(const char *text, struct error *e);

/* What comes after local:, an absolute path of those characters. */
bool options_may_be_path(const char *text);
/* The same for --volume: not longer than what setupRoot takes. */
bool options_may_be_volumes(const char *text);
/* The same for --module: some text that can be a list of names. */
bool options_may_be_modules(const char *text);

#endif
