/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/config_modules.h"

#include <string.h>
#include <strings.h>

#include "as_user/modules.h"
#include "base/text.h"

int modules_check_name(const char *name, struct error *e)
{
    /* It becomes a directory below /opt/udiImage/modules, an item of --module, and a string of the state file. */
    bool good = name[0] != '.' && strcasecmp(name, "none") != 0;
    for (const char *c = name; *c != '\0'; c++)
        good = good && strchr("/,\"\\", *c) == NULL && (unsigned char)*c > ' ' && *c != 0x7f;
    return good ? 0
                : error_set(e, 0,
                            "'%.200s' is no name for a module: no '/', ',', '\"', '\\' or blank, no '.' in front, "
                            "not 'none'",
                            name);
}

static struct config_module *find(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->module_count; i++)
        if (strcmp(config->modules[i].name, name) == 0)
            return &config->modules[i];
    return NULL;
}

struct config_module *modules_get(struct config *config, const char *name)
{
    struct config_module *module = find(config, name);
    if (module != NULL)
        return module;
    config->modules = text_grow(config->modules, config->module_count + 1, sizeof *config->modules);
    module = &config->modules[config->module_count++];
    *module = (struct config_module){.name = text_copy(name), .enabled = true};
    return module;
}

void modules_note_conflict(struct modules_lines *lines, const struct config *config,
                           const struct config_module *module, unsigned number)
{
    lines->conflict = text_grow(lines->conflict, config->module_count, sizeof *lines->conflict);
    while (lines->count < config->module_count)
        lines->conflict[lines->count++] = 0;
    lines->conflict[module - config->modules] = number;
}

static int check_conflicts(const struct config *config, const struct modules_lines *lines, const char *file,
                           struct strings *errors, struct error *e)
{
    for (size_t i = 0; i < config->module_count; i++) {
        const struct config_module *module = &config->modules[i];
        for (size_t j = 0; j < module->conflict.count; j++) {
            if (find(config, module->conflict.items[j]) != NULL)
                continue;
            (void)error_set(e, 0, "%s:%u: module_%.200s_conflict: there is no module '%.200s'", file,
                            lines->conflict[i], module->name, module->conflict.items[j]);
            if (errors == NULL)
                return -1;
            strings_add(errors, e->text);
        }
    }
    return 0;
}

int modules_check(const struct config *config, const struct modules_lines *lines, const char *file,
                  struct strings *errors, struct error *e)
{
    struct error cause;
    if (check_conflicts(config, lines, file, errors, e) < 0)
        return -1;
    struct modules defaults;
    if (modules_choose(config, NULL, &defaults, &cause) < 0)
        return error_set(e, 0, "%s:%u: defaultModules: %s", file, lines->default_line, cause.text);
    modules_release(&defaults);
    return 0;
}

void modules_free(struct config *config)
{
    for (size_t i = 0; i < config->module_count; i++) {
        struct config_module *m = &config->modules[i];
        struct strings *lists[] = {&m->environ.set, &m->environ.append, &m->environ.prepend, &m->environ.unset,
                                   &m->conflict};
        for (size_t j = 0; j < sizeof lists / sizeof lists[0]; j++)
            strings_free(lists[j]);
        volumes_free(&m->site_fs);
        free(m->name);
        free(m->copy_path);
        free(m->root_hook);
        free(m->user_hook);
    }
    free(config->modules);
    config->modules = NULL;
    config->module_count = 0;
}
