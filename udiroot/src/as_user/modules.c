/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/modules.h"

#include <string.h>
#include <strings.h>

#include "base/text.h"

static int fail_unknown(const struct config *config, const char *name, struct error *e)
{
    CLEANUP_FREE char *known = text_copy("");
    for (size_t i = 0; i < config->module_count; i++) {
        if (!config->modules[i].enabled)
            continue;
        char *longer = text_format("%s%s%s", known, *known != '\0' ? ", " : "", config->modules[i].name);
        free(known);
        known = longer;
    }
    return error_set(e, 0, "there is no module '%.200s'; this site has: %.1000s", name,
                     *known != '\0' ? known : "none");
}

/* A module that is named twice is active once. */
static int activate(const struct config *config, const char *name, struct modules *out, struct error *e)
{
    const struct config_module *module = NULL;
    for (size_t i = 0; i < config->module_count; i++)
        if (strcmp(config->modules[i].name, name) == 0)
            module = &config->modules[i];
    if (module == NULL)
        return fail_unknown(config, name, e);
    if (!module->enabled)
        return error_set(e, 0, "module '%.200s' is not enabled (module_%.200s_enabled=0)", name, name);
    for (size_t i = 0; i < out->count; i++) {
        const struct config_module *other = out->items[i];
        if (other == module)
            return 0;
        if (strings_contain(&module->conflict, other->name) || strings_contain(&other->conflict, name))
            return error_set(e, 0, "modules '%.200s' and '%.200s' conflict; choose one of them", other->name, name);
    }
    out->items = text_grow(out->items, out->count + 1, sizeof(const struct config_module *));
    out->items[out->count++] = module;
    char *longer = text_format("%s%s,", out->names, name);
    free(out->names);
    out->names = longer;
    return 0;
}

int modules_choose(const struct config *config, const char *asked, struct modules *out, struct error *e)
{
    *out = (struct modules){.names = text_copy("")};
    bool chosen = asked != NULL && *asked != '\0';
    if (!chosen && config->default_modules == NULL)
        return 0;
    CLEANUP_FREE char *copy = text_copy(chosen ? asked : config->default_modules);
    char *next = text_trim(copy), *name;
    if (strcasecmp(next, "none") == 0)
        return 0;
    int result = 0;
    while (result == 0 && (name = strsep(&next, ",")) != NULL)
        if (*(name = text_trim(name)) != '\0')
            result = activate(config, name, out, e);
    if (result == 0 && chosen && out->count == 0)
        result = error_set(e, 0, "'%.200s' names no module; 'none' is for none", asked);
    if (result < 0)
        modules_release(out);
    return result;
}

void modules_release(struct modules *modules)
{
    free(modules->items);
    free(modules->names);
    *modules = (struct modules){0};
}
