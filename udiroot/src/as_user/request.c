/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/request.h"

#include "as_user/environ.h"

/* SHIFTER_<name>, else Slurm's; an empty one asks for nothing. */
static const char *of_environment(const struct strings *outer, const char *name)
{
    CLEANUP_FREE char *plain = text_format("SHIFTER_%s", name), *spank = text_format("SLURM_SPANK_SHIFTER_%s", name);
    const char *value = environ_get(outer, plain);
    if (value == NULL || *value == '\0')
        value = environ_get(outer, spank);
    return value != NULL && *value != '\0' ? value : NULL;
}

int request_modules(const struct request *r, const struct config *config, struct modules *out, struct error *e)
{
    const char *asked = r->options->modules, *source = "--module";
    if (asked == NULL) {
        asked = of_environment(r->outer, "MODULE");
        source = "SHIFTER_MODULE";
    }
    if (asked == NULL) {
        asked = r->prepared->modules;
        source = "the prepared container";
    }
    struct error cause;
    return modules_choose(config, asked, out, &cause) == 0 ? 0 : error_set(e, 0, "%s: %s", source, cause.text);
}

int request_volumes(const struct request *r, struct volumes *out, struct error *e)
{
    const struct strings *maps = &r->options->volumes;
    struct strings inherited = {0};
    const char *text = of_environment(r->outer, "VOLUME");
    if (text == NULL)
        text = r->prepared->volumes;
    if (maps->count == 0 && text != NULL) {
        strings_add(&inherited, text);
        maps = &inherited;
    }
    int result = volumes_of_user(maps, out, e);
    strings_free(&inherited);
    return result;
}
