/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/environ.h"

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/statfs.h>

#include "base/file.h"

enum { ENV_FILE_LIMIT = 6 << 20 }; /* as much as execve(2) hands over at most */

/* Does the variable `item` have the name that is the first `length` bytes of `name`? PATH is not PATH_2. */
static bool has_name(const char *item, const char *name, size_t length)
{
    return strncmp(item, name, length) == 0 && item[length] == '=';
}

const char *environ_get(const struct strings *env, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < env->count; i++)
        if (has_name(env->items[i], name, length))
            return env->items[i] + length + 1;
    return NULL;
}

/* Removes the variables of that name from index `from` on; the others keep their order. */
static void remove_from(struct strings *env, size_t from, const char *name, size_t length)
{
    size_t kept = from;
    for (size_t i = from; i < env->count; i++) {
        if (has_name(env->items[i], name, length))
            free(env->items[i]);
        else
            env->items[kept++] = env->items[i];
    }
    if (env->count > 0) {
        env->count = kept;
        env->items[kept] = NULL;
    }
}

void environ_unset(struct strings *env, const char *name)
{
    remove_from(env, 0, name, strlen(name));
}

/* A caller can hand us one name several times; afterwards it is there once. */
void environ_set(struct strings *env, const char *name_value)
{
    const char *equals = strchr(name_value, '=');
    if (equals == NULL)
        return;
    size_t length = (size_t)(equals - name_value);
    char *copy = text_copy(name_value);
    for (size_t i = 0; i < env->count; i++) {
        if (!has_name(env->items[i], copy, length))
            continue;
        free(env->items[i]);
        env->items[i] = copy;
        remove_from(env, i + 1, copy, length);
        return;
    }
    strings_take(env, copy);
}

/* Joins with ':'. An empty side adds nothing: an empty element of PATH would be the current directory. */
static void join(struct strings *env, const char *name_value, bool new_first)
{
    const char *equals = strchr(name_value, '=');
    if (equals == NULL)
        return;
    CLEANUP_FREE char *name = text_copy_n(name_value, (size_t)(equals - name_value));
    const char *added = equals + 1, *old = environ_get(env, name);
    if (old == NULL || *old == '\0') {
        environ_set(env, name_value);
    } else if (*added != '\0') {
        CLEANUP_FREE char *joined =
            text_format("%s=%s:%s", name, new_first ? added : old, new_first ? old : added);
        environ_set(env, joined);
    }
}

void environ_append(struct strings *env, const char *name_value)
{
    join(env, name_value, false);
}

void environ_prepend(struct strings *env, const char *name_value)
{
    join(env, name_value, true);
}

void environ_note(struct strings *origins, void (*change)(struct strings *, const char *), const char *item,
                  const char *prefix, const char *origin)
{
    if (origins == NULL)
        return;
    CLEANUP_FREE char *noted = text_format("%.*s=%s%s", (int)strcspn(item, "="), item, prefix, origin);
    change(origins, change == environ_unset ? item : noted);
}

void environ_apply_site(struct strings *env, const struct site_environ *site, const char *prefix,
                        struct strings *origins)
{
    const struct {
        const struct strings *items;
        void (*change)(struct strings *, const char *);
        const char *key;
    } steps[] = {{&site->set, environ_set, "siteEnv"},
                 {&site->append, environ_append, "siteEnvAppend"},
                 {&site->prepend, environ_prepend, "siteEnvPrepend"},
                 {&site->unset, environ_unset, "siteEnvUnset"}};
    for (size_t s = 0; s < sizeof steps / sizeof steps[0]; s++)
        for (size_t i = 0; i < steps[s].items->count; i++) {
            steps[s].change(env, steps[s].items->items[i]);
            environ_note(origins, steps[s].change, steps[s].items->items[i], prefix, steps[s].key);
        }
}

int environ_check(const char *name_value, struct error *e)
{
    const char *equals = strchr(name_value, '=');
    if (equals == NULL)
        return error_set(e, 0, "'%.200s' sets no variable; write NAME=value", name_value);
    if (equals == name_value)
        return error_set(e, 0, "'%.200s' has no name before the '='; write NAME=value", name_value);
    for (const char *c = name_value; c < equals; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return error_set(e, 0, "the variable name in '%.200s' has a control character; write NAME=value",
                             name_value);
    return 0;
}

static char *read_all(int fd, const char *name, size_t *length, struct error *e)
{
    char *text = file_read(fd, 0, ENV_FILE_LIMIT, length);
    if (text == NULL && errno == EFBIG)
        (void)error_set(e, 0, "the environment file %.200s is longer than %d bytes; is it the right one?", name,
                        ENV_FILE_LIMIT);
    else if (text == NULL)
        (void)error_set(e, errno, "cannot read the environment file %.200s", name);
    return text;
}

int environ_read_file(int fd, const char *name, struct strings *out, struct error *e)
{
    size_t length;
    struct statfs fs;
    /* /proc/self is this process: where it has its memory, and whatever else its user could not see from outside. */
    if (fstatfs(fd, &fs) < 0)
        return error_set(e, errno, "cannot read the environment file %.200s", name);
    if (fs.f_type == PROC_SUPER_MAGIC)
        return error_set(e, 0, "the environment file %.200s is on procfs, where shifter reads none; copy it to a file",
                         name);
    CLEANUP_FREE char *text = read_all(fd, name, &length, e);
    if (text == NULL)
        return -1;
    if (strlen(text) != length)
        return error_set(e, 0, "the environment file %.200s has a NUL byte; it must be text", name);
    unsigned number = 0;
    for (char *next = text, *line; (line = strsep(&next, "\n")) != NULL;) {
        struct error cause;
        number++;
        line = text_trim(line);
        if (*line == '\0' || *line == '#')
            continue;
        if (environ_check(line, &cause) < 0)
            return error_set(e, 0, "%.200s:%u: %s", name, number, cause.text);
        strings_add(out, line);
    }
    return 0;
}

int environ_read_process(int fd, const struct strings *names, struct strings *out, struct error *e)
{
    size_t length;
    CLEANUP_FREE char *text = read_all(fd, "of this process", &length, e);
    if (text == NULL)
        return -1;
    for (const char *item = text; item < text + length; item += strlen(item) + 1)
        for (size_t i = 0; i < names->count; i++)
            if (has_name(item, names->items[i], strlen(names->items[i])))
                environ_set(out, item);
    return 0;
}
