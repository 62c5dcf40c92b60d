/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/command.h"

#include "as_user/environ.h"

int command_choose(const struct options *options, const struct image *image, const struct strings *outer,
                   struct command *out, struct error *e)
{
    const struct image_meta *meta = &image->meta;
    char **given = options->command;
    *out = (struct command){0};
    if (options->entrypoint && options->entrypoint_program != NULL) {
        strings_add(&out->words, options->entrypoint_program);
    } else if (options->entrypoint) {
        if (meta->entry.count == 0)
            return error_set(e, 0, "--entrypoint: image %s has no entrypoint; name a program with --entrypoint=PROGRAM",
                             image->id);
        for (size_t i = 0; i < meta->entry.count; i++)
            strings_add(&out->words, meta->entry.items[i]);
        for (size_t i = 0; given[0] == NULL && i < meta->cmd.count; i++)
            strings_add(&out->words, meta->cmd.items[i]);
    } else if (given[0] == NULL) {
        const char *shell = environ_get(outer, "SHELL");
        out->shell = shell != NULL && shell[0] == '/' ? shell : NULL;
        strings_add(&out->words, "/bin/sh"); /* what most images have */
    }
    for (; *given != NULL; given++)
        strings_add(&out->words, *given);
    return 0;
}
