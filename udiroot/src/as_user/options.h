/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Command line of `shifter` (spec: runtime contract, section 7.1), parsed as the user into plain data.
 */
#ifndef SHIFTER_OPTIONS_H
#define SHIFTER_OPTIONS_H

#include <stdbool.h>

#include "base/error.h"
#include "base/text.h"

enum options_action { ACTION_RUN, ACTION_HELP, ACTION_VERSION, ACTION_CHECK_CONFIG };

struct options {
    enum options_action action;
    const char *image;            /* --image, NULL when not given */
    struct strings volumes;       /* --volume, each occurrence */
    const char *modules;          /* --module */
    bool entrypoint;              /* --entrypoint given */
    const char *entrypoint_program; /* --entrypoint=prog, else NULL */
    bool workdir;                 /* --workdir given */
    const char *workdir_path;     /* --workdir=path, else NULL */
    struct strings environ;       /* --env */
    const char *env_file;         /* --env-file */
    bool clear_environ;           /* --clearenv */
    struct strings kept;          /* --keepenv, the names */
    const char *explain;          /* --explain: "text" or "json", else NULL */
    bool verbose;
    char **command;               /* rest of argv, NULL-terminated, may be empty */
};

int options_parse(int argc, char **argv, struct options *out, struct error *e);
void options_free(struct options *options);
extern const char options_help[];

#endif
