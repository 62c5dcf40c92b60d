/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/container_environ.h"

#include <errno.h>
#include <fcntl.h>

#include "as_user/environ.h"

static int read_env_file(const char *path, struct strings *out, struct error *e)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    return fd < 0 ? error_set(e, errno, "cannot read --env-file %s", path) : environ_read_file(fd, path, out, e);
}

static int add_callers(const struct environ_sources *s, struct strings *out, struct strings *origins, struct error *e)
{
    if (!s->options->clear_environ)
        for (size_t i = 0; i < s->outer->count; i++) {
            strings_add(out, s->outer->items[i]);
            environ_note(origins, environ_set, s->outer->items[i], "", "caller");
        }
    const struct strings *kept = &s->options->kept;
    for (size_t i = 0; i < kept->count; i++)
        environ_note(origins, environ_set, kept->items[i], "", "--keepenv");
    return kept->count == 0 ? 0 : environ_read_process(s->process_environ, kept, out, e);
}

static void add_own(const struct environ_sources *s, struct strings *out, struct strings *origins)
{
    CLEANUP_FREE char *identifier = text_format("SHIFTER_IMAGE=%s", s->image->id);
    if (s->request != NULL) {
        CLEANUP_FREE char *request = text_format("SHIFTER_IMAGEREQUEST=%s", s->request);
        environ_set(out, request);
    }
    environ_set(out, identifier);
    environ_note(origins, environ_set, "SHIFTER_IMAGE", "", "shifter");
    environ_note(origins, environ_set, "SHIFTER_IMAGEREQUEST", "", s->request != NULL ? "shifter" : "caller");
}

static void add_all(const struct strings *items, const char *origin, struct strings *out, struct strings *origins)
{
    for (size_t i = 0; i < items->count; i++) {
        environ_set(out, items->items[i]);
        environ_note(origins, environ_set, items->items[i], "", origin);
    }
}

int container_environ_make(const struct environ_sources *s, struct strings *out, struct strings *origins,
                           struct error *e)
{
    struct strings file = {0};
    if ((s->options->env_file != NULL && read_env_file(s->options->env_file, &file, e) < 0) ||
        add_callers(s, out, origins, e) < 0) {
        strings_free(&file);
        return -1;
    }
    add_own(s, out, origins);
    add_all(&s->image->meta.environ, "image", out, origins);
    add_all(&file, "--env-file", out, origins);
    add_all(&s->options->environ, "--env", out, origins);
    for (size_t i = 0; i < s->modules->count; i++) {
        CLEANUP_FREE char *prefix = text_format("module_%s_", s->modules->items[i]->name);
        environ_apply_site(out, &s->modules->items[i]->environ, prefix, origins);
    }
    environ_apply_site(out, &s->config->site_environ, "", origins);
    strings_free(&file);
    return 0;
}
