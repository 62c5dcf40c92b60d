/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/config_keys.h"

#include <limits.h>
#include <string.h>

#include "as_user/config_places.h"

#define SITE(key, kind, field) {key, kind, offsetof(struct config, field), NULL}
#define MODULE(key, kind, field) {key, kind, offsetof(struct config_module, field), NULL}
#define IGNORED(key, kind) {key, kind, 0, NULL}

const struct config_key config_keys[] = {
    SITE("udiMount", KEY_PLACE, udi_mount),
    SITE("loopMount", KEY_PLACE, loop_mount),
    SITE("imagePath", KEY_DIRECTORY, image_path),
    SITE("imageOwner", KEY_TEXT, image_owner),
    SITE("udiRootPath", KEY_PATH, udi_root_path),
    SITE("etcPath", KEY_DIRECTORY, etc_path),
    {"rootfsType", KEY_WORD, offsetof(struct config, rootfs_type), "tmpfs ramfs"},
    SITE("mountUdiRootWritable", KEY_FLAG, mount_udi_root_writable),
    SITE("maxGroupCount", KEY_NUMBER, max_group_count),
    SITE("allowLocalChroot", KEY_FLAG, allow_local_chroot),
    SITE("allowLibcPwdCalls", KEY_FLAG, allow_libc_pwd_calls),
    SITE("populateEtcDynamically", KEY_FLAG, populate_etc_dynamically),
    SITE("usersToImport", KEY_LIST, users_to_import),
    SITE("optUdiImage", KEY_PATH, opt_udi_image),
    SITE("sitePreMountHook", KEY_PATH, site_pre_mount_hook),
    SITE("sitePostMountHook", KEY_PATH, site_post_mount_hook),
    SITE("siteFs", KEY_VOLUMES, site_fs),
    SITE("siteEnv", KEY_ASSIGNMENTS, site_environ.set),
    SITE("siteEnvAppend", KEY_ASSIGNMENTS, site_environ.append),
    SITE("siteEnvPrepend", KEY_ASSIGNMENTS, site_environ.prepend),
    SITE("siteEnvUnset", KEY_NAMES, site_environ.unset),
    SITE("mountPropagationStyle", KEY_PROPAGATION, mount_propagation_style),
    SITE("perNodeCachePath", KEY_DIRECTORY, per_node_cache_path),
    SITE("perNodeCacheSizeLimit", KEY_BYTES, per_node_cache_size_limit),
    SITE("perNodeCacheAllowedFsType", KEY_LIST, per_node_cache_allowed_fs_type),
    SITE("mkfsXfsPath", KEY_TEXT, mkfs_xfs_path),
    SITE("siteResources", KEY_DIRECTORY, site_resources),
    SITE("imageGateway", KEY_LIST, image_gateway),
    SITE("gatewayTimeout", KEY_NUMBER, gateway_timeout),
    SITE("system", KEY_TEXT, system),
    {"defaultImageType", KEY_WORD, offsetof(struct config, default_image_type), "docker custom id local"},
    SITE("batchType", KEY_TEXT, batch_type),
    SITE("defaultModules", KEY_TEXT, default_modules),
    IGNORED("modprobePath", KEY_UNUSED),
    IGNORED("insmodPath", KEY_UNUSED),
    IGNORED("cpPath", KEY_UNUSED),
    IGNORED("mvPath", KEY_UNUSED),
    IGNORED("chmodPath", KEY_UNUSED),
    IGNORED("ddPath", KEY_UNUSED),
    IGNORED("nodeContextPrefix", KEY_UNUSED),
    IGNORED("autoLoadKernelModule", KEY_DEPRECATED),
    IGNORED("kmodBasePath", KEY_DEPRECATED),
    IGNORED("kmodCacheFile", KEY_DEPRECATED),
    IGNORED("optionalSshdAsRoot", KEY_DEPRECATED),
    {"udiImagePath", KEY_RENAMED, offsetof(struct config, opt_udi_image), "optUdiImage"},
    {NULL, KEY_TEXT, 0, NULL},
};

const struct config_key config_module_keys[] = {
    MODULE("siteEnv", KEY_ASSIGNMENTS, environ.set),
    MODULE("siteEnvAppend", KEY_ASSIGNMENTS, environ.append),
    MODULE("siteEnvPrepend", KEY_ASSIGNMENTS, environ.prepend),
    MODULE("siteEnvUnset", KEY_NAMES, environ.unset),
    MODULE("siteFs", KEY_VOLUMES, site_fs),
    MODULE("copyPath", KEY_DIRECTORY, copy_path),
    MODULE("roothook", KEY_PATH, root_hook),
    MODULE("userhook", KEY_PATH, user_hook),
    MODULE("conflict", KEY_LIST, conflict),
    MODULE("enabled", KEY_FLAG, enabled),
    {NULL, KEY_TEXT, 0, NULL},
};

const struct config_key *config_key_find(const struct config_key *keys, const char *name)
{
    for (; keys->name != NULL; keys++)
        if (strcmp(keys->name, name) == 0)
            return keys;
    return NULL;
}

enum { LONGEST_NAME = 48 };

static unsigned char folded(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

/* Levenshtein's distance, letter case aside; both names at most LONGEST_NAME long. */
static size_t distance(const char *a, const char *b)
{
    size_t row[LONGEST_NAME + 1], width = strlen(b);
    for (size_t j = 0; j <= width; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < width; j++) {
            size_t change = diagonal + (folded(a[i]) != folded(b[j]));
            diagonal = row[j + 1];
            size_t insert = row[j] + 1, erase = row[j + 1] + 1;
            row[j + 1] = change < insert ? (change < erase ? change : erase) : (insert < erase ? insert : erase);
        }
    }
    return row[width];
}

const char *config_key_suggest(const struct config_key *keys, const char *name)
{
    size_t length = strlen(name), best = length / 3 + 1;
    const char *found = NULL;
    for (; keys->name != NULL && length > 0 && length <= LONGEST_NAME; keys++) {
        size_t d = distance(name, keys->name);
        if (d < best) {
            best = d;
            found = keys->name;
        }
    }
    return found;
}

static int parse_number(const char *value, unsigned most, unsigned *out, struct error *e)
{
    unsigned long number = 0;
    const char *c = value;
    for (; *c >= '0' && *c <= '9' && number <= most; c++)
        number = 10 * number + (unsigned long)(*c - '0');
    if (c == value || *c != '\0' || number > most)
        return error_set(e, 0, "'%.200s' is not a number from 0 to %u", value, most);
    *out = (unsigned)number;
    return 0;
}

static int parse_path(const char *value, enum config_kind kind, char **out, struct error *e)
{
    CLEANUP_FREE char *clean = path_clean(value);
    if (clean == NULL)
        return error_set(e, 0, "'%.200s' is not an absolute path without '..'", value);
    for (const char *c = clean; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return error_set(e, 0, "'%.200s' has a control character; write a path without", value);
    if ((kind == KEY_DIRECTORY || kind == KEY_PLACE) && clean[1] == '\0')
        return error_set(e, 0, "the directory / cannot be used for this; name another one");
    if (kind == KEY_PLACE && config_check_place(clean, e) < 0)
        return -1;
    free(*out);
    *out = clean;
    clean = NULL; /* the caller's */
    return 0;
}

/* Is `value` one of the blank-separated words? */
static bool is_word(const char *value, const char *words)
{
    size_t length = strlen(value);
    if (strchr(value, ' ') != NULL)
        return false;
    for (const char *at = words; (at = strstr(at, value)) != NULL; at += length)
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    return false;
}

static int check_item(enum config_kind kind, const char *item, struct error *e)
{
    if (kind == KEY_ASSIGNMENTS)
        return environ_check(item, e);
    if (kind == KEY_NAMES && strchr(item, '=') != NULL)
        return error_set(e, 0, "'%.200s' is not the name of a variable", item);
    return 0;
}

static int parse_list(const struct config_key *key, const char *value, bool replace, struct strings *out,
                      struct error *e)
{
    struct strings items = {0};
    CLEANUP_FREE char *copy = text_copy(value);
    for (char *next = copy, *item; (item = strsep(&next, " \t\r\n\v\f")) != NULL;) {
        if (*item == '\0')
            continue;
        if (check_item(key->kind, item, e) < 0) {
            strings_free(&items);
            return -1;
        }
        strings_add(&items, item);
    }
    if (replace)
        strings_free(out);
    for (size_t i = 0; i < items.count; i++)
        strings_take(out, items.items[i]);
    free(items.items);
    return 0;
}

static int parse_flag(const char *value, bool *out, struct error *e)
{
    unsigned number;
    if (parse_number(value, UINT_MAX, &number, e) < 0)
        return error_set(e, 0, "'%.200s' is neither 0 nor 1", value);
    *out = number != 0;
    return 0;
}

int config_key_assign(const struct config_key *key, void *base, const char *value, bool replace, struct error *e)
{
    void *field = (char *)base + key->offset;
    char **text = field;
    switch (key->kind) {
    case KEY_PATH:
    case KEY_RENAMED:
    case KEY_PLACE:
    case KEY_DIRECTORY: return parse_path(value, key->kind, text, e);
    case KEY_FLAG: return parse_flag(value, field, e);
    case KEY_NUMBER: return parse_number(value, INT_MAX, field, e);
    case KEY_BYTES:
        return text_parse_size(value, field) == 0
                   ? 0
                   : error_set(e, 0, "'%.200s' is not a size, such as 500m or 1.5g", value);
    case KEY_LIST:
    case KEY_ASSIGNMENTS:
    case KEY_NAMES: return parse_list(key, value, replace, field, e);
    case KEY_VOLUMES: return volumes_parse(value, VOLUME_OF_SITE, field, e);
    case KEY_PROPAGATION:
        if (!is_word(value, "private slave"))
            return error_set(e, 0, "'%.200s' is none of: private slave", value);
        *(enum mount_propagation *)field = value[0] == 's' ? PROPAGATE_SLAVE : PROPAGATE_PRIVATE;
        return 0;
    case KEY_WORD:
        if (!is_word(value, key->words))
            return error_set(e, 0, "'%.200s' is none of: %s", value, key->words);
        break;
    case KEY_TEXT:
    case KEY_UNUSED:
    case KEY_DEPRECATED: break;
    }
    free(*text);
    *text = text_copy(value);
    return 0;
}
