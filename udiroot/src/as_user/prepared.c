/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/prepared.h"

#include <string.h>

/* What follows `word` in the first line that begins with it, up to `end`; NULL where no line does. */
static char *field(const char *plan, const char *word, const char *end)
{
    for (const char *line = plan; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, word, strlen(word)) != 0)
            continue;
        const char *value = line + strlen(word), *line_end = value + strcspn(value, "\n"), *stop = strstr(value, end);
        return text_copy_n(value, (size_t)((stop != NULL && stop < line_end ? stop : line_end) - value));
    }
    return NULL;
}

static void read_plan(const char *plan, struct prepared *out)
{
    CLEANUP_FREE char *id = field(plan, "image ", " -> "), *path = field(plan, "local ", " -> ");
    CLEANUP_FREE char *modules = field(plan, "modules ", "\n"), *volumes = field(plan, "volumes ", "\n");
    const char *image = id != NULL ? id : path != NULL ? path : "";
    *out = (struct prepared){.image = text_format("%s:%s", id != NULL ? "id" : "local", image),
                             .modules = text_copy(modules != NULL && *modules != '\0' ? modules : "none"),
                             .volumes = text_copy(volumes != NULL ? volumes : "")};
}

static char *describe(const struct prepared *p)
{
    return text_format("%s (modules %s%s%s)", p->image, p->modules, *p->volumes != '\0' ? "; volumes " : "",
                       p->volumes);
}

static int fail_ambiguous(const struct strings *requests, struct error *e)
{
    CLEANUP_FREE char *list = text_copy("");
    for (size_t i = 0; i < requests->count; i++) {
        char *longer = text_format("%s%s%s", list, i > 0 ? ", " : "", requests->items[i]);
        free(list);
        list = longer;
    }
    return error_set(e, 0,
                     "no image named, and %zu different containers are prepared here for you; choose one with --image "
                     "(and --module, --volume where it has them): %.1500s",
                     requests->count, list);
}

int prepared_choose(const struct strings *plans, struct prepared *out, struct error *e)
{
    struct strings requests = {0};
    *out = (struct prepared){0};
    if (plans->count == 0)
        return error_set(e, 0,
                         "no image named, and no container is prepared here for you; use --image=TYPE:TAG or set "
                         "SHIFTER_IMAGEREQUEST (shifter --help)");
    for (size_t i = 0; i < plans->count; i++) { /* plans of one request can differ in what the site has changed since */
        prepared_free(out);
        read_plan(plans->items[i], out);
        CLEANUP_FREE char *request = describe(out);
        if (!strings_contain(&requests, request))
            strings_add(&requests, request);
    }
    int result = requests.count == 1 ? 0 : fail_ambiguous(&requests, e);
    strings_free(&requests);
    if (result < 0)
        prepared_free(out);
    return result;
}

void prepared_free(struct prepared *prepared)
{
    free(prepared->image);
    free(prepared->modules);
    free(prepared->volumes);
    *prepared = (struct prepared){0};
}
