/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

#include "as_user/config_keys.h"
#include "as_user/config_modules.h"
#include "as_user/config_places.h"
#include "as_user/lines.h"
#include "base/file.h"

enum { FILE_LIMIT = 1 << 20 };

static const char module_prefix[] = "module_";

struct parser {
    const char *name; /* of the file */
    struct config *config;
    struct strings *errors; /* NULL: the first one ends the parsing */
    struct modules_lines modules;
};

/* "file:LINE: message"; through struct error, which makes the text fit for a terminal. */
static void remark(struct parser *p, unsigned number, const char *what, const char *key, const char *hint,
                   const char *hinted)
{
    struct error text;
    (void)error_set(&text, 0, "%s:%u: %s%.200s%s%s", p->name, number, what, key, hint, hinted);
    strings_add(&p->config->remarks, text.text);
}

static void remark_unknown(struct parser *p, unsigned number, const char *key, const char *name,
                           const struct config_key *keys)
{
    const char *similar = config_key_suggest(keys, name);
    CLEANUP_FREE char *quoted = text_format("'%.200s'", key);
    CLEANUP_FREE char *question = similar == NULL ? text_copy("")
                                                  : text_format("; did you mean '%.*s%s'?", (int)(name - key), key,
                                                                similar);
    remark(p, number, "unknown key ", quoted, question, "");
}

static int settle(const struct parser *p, const struct error *e)
{
    if (p->errors == NULL)
        return -1;
    strings_add(p->errors, e->text);
    return 0;
}

static int fail(const struct parser *p, const struct line *line, const struct error *cause, struct error *e)
{
    return error_set(e, 0, "%s:%u: %.200s: %s", p->name, line->number, line->key, cause->text);
}

/* module_<name>_<key>; the name may have underscores of its own. */
static int assign_module_key(struct parser *p, const struct line *line, struct error *e)
{
    struct error cause;
    const char *start = line->key + sizeof module_prefix - 1, *key = strrchr(start, '_');
    if (key == NULL || key == start || key[1] == '\0') {
        remark(p, line->number, "key without effect: ", line->key, "; a module's are module_<name>_<key>", "");
        return 0;
    }
    CLEANUP_FREE char *name = text_copy_n(start, (size_t)(key - start));
    if (modules_check_name(name, &cause) < 0)
        return fail(p, line, &cause, e);
    struct config_module *module = modules_get(p->config, name);
    const struct config_key *known = config_key_find(config_module_keys, ++key);
    if (known == NULL) {
        remark_unknown(p, line->number, line->key, key, config_module_keys);
        return 0;
    }
    if (*line->value == '\0') {
        remark(p, line->number, line->key, "", " has no value: the line is ignored", "");
        return 0;
    }
    if (known->kind == KEY_LIST)
        modules_note_conflict(&p->modules, p->config, module, line->number);
    /* The lists of a module are replaced, those of the site grow: section 3.2. */
    return config_key_assign(known, module, line->value, true, &cause) < 0 ? fail(p, line, &cause, e) : 0;
}

static int assign(struct parser *p, const struct line *line, struct error *e)
{
    struct error cause;
    if (*line->key == '\0')
        return error_set(e, 0, "%s:%u: there is no key before the '='", p->name, line->number);
    if (strncmp(line->key, module_prefix, sizeof module_prefix - 1) == 0)
        return assign_module_key(p, line, e);
    const struct config_key *key = config_key_find(config_keys, line->key);
    if (key == NULL) {
        remark_unknown(p, line->number, line->key, line->key, config_keys);
        return 0;
    }
    if (key->kind == KEY_UNUSED || key->kind == KEY_DEPRECATED) {
        strings_take(&p->config->accepted_unused, text_format("%s=%s", line->key, line->value));
        if (key->kind == KEY_DEPRECATED)
            remark(p, line->number, line->key, "", " has no effect any more; remove it", "");
        return 0;
    }
    if (*line->value == '\0') {
        remark(p, line->number, line->key, "", " has no value: the line is ignored", "");
        return 0;
    }
    if (key->kind == KEY_RENAMED)
        remark(p, line->number, line->key, "", " is now called ", key->words);
    if (key->offset == offsetof(struct config, default_modules))
        p->modules.default_line = line->number;
    return config_key_assign(key, p->config, line->value, false, &cause) < 0 ? fail(p, line, &cause, e) : 0;
}

static int read_lines(struct parser *p, const char *text, size_t length, struct error *e)
{
    struct lines lines;
    struct line line;
    enum line_kind kind;
    int result = 0;
    lines_begin(&lines, text, length, '=', NULL);
    while (result == 0 && (kind = lines_next(&lines, &line)) != LINE_END) {
        if (kind == LINE_REMARK)
            remark(p, line.number, line.value, "", "", "");
        else if (assign(p, &line, e) < 0)
            result = settle(p, e);
    }
    lines_end(&lines);
    return result;
}

static int check_required(const struct parser *p, struct error *e)
{
    const struct config *c = p->config;
    const struct {
        const char *key, *value, *hint;
    } required[] = {
        {"udiMount", c->udi_mount, "=/var/udiMount"},
        {"imagePath", c->image_path, "= with the directory of the images"},
        {"udiRootPath", c->udi_root_path, "= with the directory shifter is installed in"},
        {"rootfsType", c->rootfs_type, "=tmpfs"},
        {"etcPath", c->populate_etc_dynamically ? "unused" : c->etc_path,
         "= with a directory of passwd, group and nsswitch.conf, or populateEtcDynamically=1"},
    };
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
        if (required[i].value == NULL) {
            (void)error_set(e, 0, "%s: %s is not set; add %s%s", p->name, required[i].key, required[i].key,
                            required[i].hint);
            if (settle(p, e) < 0)
                return -1;
        }
    /* A component of the tag index's path and of the gateway's URLs. */
    bool word = c->system == NULL || (c->system[0] != '.' && strchr(c->system, '/') == NULL);
    for (const char *letter = c->system; word && letter != NULL && *letter != '\0'; letter++)
        word = (unsigned char)*letter > ' ' && *letter != 0x7f;
    if (!word)
        return error_set(e, 0,
                         "%s: system: '%.200s' is no name of a system; it is one word without '/', as in the gateway's "
                         "configuration",
                         p->name, c->system);
    return 0;
}

/* A number needs no look-up. An unknown account is no error here: clients on nodes without it have no use for it. */
static void find_image_owner(struct parser *p)
{
    struct config *c = p->config;
    char *end;
    if (c->image_owner == NULL)
        c->image_owner = text_copy("root");
    errno = 0;
    unsigned long number = strtoul(c->image_owner, &end, 10);
    c->image_owner_uid = (uid_t)-1;
    if (strcmp(c->image_owner, "root") == 0) {
        c->image_owner_uid = 0;
    } else if (c->image_owner[0] >= '0' && c->image_owner[0] <= '9' && *end == '\0') {
        if (errno == 0 && number < (uid_t)-1)
            c->image_owner_uid = (uid_t)number;
    } else {
        const struct passwd *entry = getpwnam(c->image_owner);
        if (entry != NULL)
            c->image_owner_uid = entry->pw_uid;
    }
    if (c->image_owner_uid == (uid_t)-1) {
        struct error text;
        (void)error_set(&text, 0, "%s: imageOwner: there is no account '%.200s' here; only images of root are used",
                        p->name, c->image_owner);
        strings_add(&c->remarks, text.text);
    }
}

static int parse(struct parser *p, const char *text, size_t length, struct error *e)
{
    struct config *out = p->config;
    *out = (struct config){0};
    int result = 0;
    if (length > 0 && memchr(text, '\0', length) != NULL)
        result = error_set(e, 0, "%s has a NUL byte; it must be text", p->name);
    else if (read_lines(p, text, length, e) < 0 || (check_required(p, e) < 0 && settle(p, e) < 0) ||
             (config_check_nesting(out, p->name, p->errors, e) < 0 && settle(p, e) < 0) ||
             (modules_check(out, &p->modules, p->name, p->errors, e) < 0 && settle(p, e) < 0))
        result = -1;
    free(p->modules.conflict);
    if (result == 0)
        find_image_owner(p);
    else
        config_free(out);
    return result;
}

int config_parse(const char *text, size_t length, const char *name, struct config *out, struct error *e)
{
    return parse(&(struct parser){.name = name, .config = out}, text, length, e);
}

int config_examine(const char *text, size_t length, const char *name, struct config *out, struct strings *errors,
                   struct error *e)
{
    return parse(&(struct parser){.name = name, .config = out, .errors = errors}, text, length, e);
}

static int check_trust(const char *path, const struct stat *st, bool trust_any_owner, struct error *e)
{
    if (!S_ISREG(st->st_mode))
        return error_set(e, 0, "the configuration %s is not a regular file", path);
    if (st->st_uid != 0 && !trust_any_owner)
        return error_set(e, 0, "the configuration %s belongs to uid %u; it must belong to root (chown root)", path,
                         (unsigned)st->st_uid);
    if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return error_set(e, 0, "the configuration %s can be written by others (mode %04o); take that away (chmod go-w)",
                         path, (unsigned)st->st_mode & 07777U);
    if (st->st_size > FILE_LIMIT)
        return error_set(e, 0, "the configuration %s is longer than %d bytes; is it the right file?", path, FILE_LIMIT);
    return 0;
}

int config_load(const char *path, bool trust_any_owner, struct config *out, struct error *e)
{
    *out = (struct config){0};
    struct stat st;
    /* Not to wait for the writer of a FIFO that somebody put there. */
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 && errno == EACCES)
        return error_set(e, 0, "the configuration %s cannot be read by you; every user of shifter must be able to "
                               "(chmod a+r, and a+x for the directories above it)", path);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(e, errno, "cannot read the configuration %s", path);
    if (check_trust(path, &st, trust_any_owner, e) < 0)
        return -1;
    size_t used;
    CLEANUP_FREE char *text = file_read(fd, st.st_size, FILE_LIMIT, &used);
    if (text == NULL)
        return error_set(e, errno, "cannot read the configuration %s", path);
    return config_parse(text, used, path, out, e);
}

unsigned config_lookup_seconds(const struct config *c)
{
    enum { DEFAULT_TIMEOUT = 60, GRACE = 2 /* the client knows better than who waits for it what went wrong */ };
    unsigned long long seconds = c->gateway_timeout > 0 ? c->gateway_timeout : DEFAULT_TIMEOUT;
    seconds = seconds * (c->image_gateway.count > 0 ? c->image_gateway.count : 1) + GRACE;
    return seconds < INT_MAX ? (unsigned)seconds : INT_MAX;
}

void config_free(struct config *c)
{
    char *texts[] = {c->udi_mount, c->loop_mount, c->image_path, c->image_owner, c->udi_root_path, c->etc_path,
                     c->rootfs_type, c->opt_udi_image, c->site_pre_mount_hook, c->site_post_mount_hook,
                     c->per_node_cache_path, c->mkfs_xfs_path, c->site_resources, c->system, c->default_image_type,
                     c->batch_type, c->default_modules};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(texts[i]);
    struct strings *lists[] = {&c->users_to_import, &c->site_environ.set, &c->site_environ.append,
                               &c->site_environ.prepend, &c->site_environ.unset, &c->per_node_cache_allowed_fs_type,
                               &c->image_gateway, &c->accepted_unused, &c->remarks};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        strings_free(lists[i]);
    volumes_free(&c->site_fs);
    modules_free(c);
    *c = (struct config){0};
}
