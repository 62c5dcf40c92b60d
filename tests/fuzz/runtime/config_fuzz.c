/* SPDX-License-Identifier: BSD-3-Clause
 *
 * udiRoot.conf: refused, or what its keys may hold, which reads the same when written out; the checker and the launcher
 * agree; modules are chosen as asked.
 *
 * Input: the file; what follows its last NUL is what --module says.
 */
#include <inttypes.h>
#include <limits.h>

#include "as_user/config_keys.h"
#include "as_user/config_modules.h"
#include "as_user/modules.h"
#include "expect.h"

static const char file[] = "udiRoot.conf";

static void expect_place(const char *message)
{
    expect_printable(message);
    if (strncmp(message, file, strlen(file)) != 0)
        bug("a message does not name the file: %s", message);
}

/* --- what a key may hold ------------------------------------------------------------------------------------------ */

static void check_list(const struct config_key *key, const struct strings *list)
{
    struct error e;
    for (size_t i = 0; i < list->count; i++) {
        const char *item = list->items[i];
        if (*item == '\0' || strpbrk(item, " \t\r\n\v\f") != NULL)
            bug("%s has the item '%s'", key->name, item);
        if (key->kind == KEY_ASSIGNMENTS && environ_check(item, &e) < 0)
            bug("%s: %s", key->name, e.text);
        if (key->kind == KEY_NAMES && strchr(item, '=') != NULL)
            bug("%s has the name '%s'", key->name, item);
    }
}

static bool is_path(const struct config_key *key)
{
    return key->kind == KEY_PATH || key->kind == KEY_DIRECTORY || key->kind == KEY_PLACE ||
           key->kind == KEY_RENAMED;
}

static bool ends_blank(const char *text)
{
    return *text != '\0' && text_is_blank(text[strlen(text) - 1]);
}

static void check_text(const struct config_key *key, const char *text)
{
    if (text == NULL)
        return;
    /* A directory whose name ends in a blank can be written with a slash behind it. */
    if (*text == '\0' || text_is_blank(*text) || (ends_blank(text) && !is_path(key)))
        bug("%s is '%s'", key->name, text);
    if (is_path(key))
        expect_clean_path(text, key->name);
    if ((key->kind == KEY_DIRECTORY || key->kind == KEY_PLACE) && text[1] == '\0')
        bug("%s is the root directory", key->name);
    if (key->kind == KEY_PLACE && (path_is_below("/etc", text) || path_is_below(text, "/dev")))
        bug("%s is %s, where the node has mounts of its own", key->name, text);
    if (key->kind == KEY_WORD) {
        CLEANUP_FREE char *words = text_format(" %s ", key->words);
        CLEANUP_FREE char *word = text_format(" %s ", text);
        if (strstr(words, word) == NULL || strchr(text, ' ') != NULL)
            bug("%s is '%s'", key->name, text);
    }
}

static void check_keys(const struct config_key *key, const void *base)
{
    for (; key->name != NULL; key++) {
        const void *field = (const char *)base + key->offset;
        switch (key->kind) {
        case KEY_UNUSED:
        case KEY_DEPRECATED:
        case KEY_FLAG:
        case KEY_BYTES:
        case KEY_PROPAGATION: break;
        case KEY_NUMBER:
            if (*(const unsigned *)field > INT_MAX)
                bug("%s is %u", key->name, *(const unsigned *)field);
            break;
        case KEY_LIST:
        case KEY_ASSIGNMENTS:
        case KEY_NAMES: check_list(key, field); break;
        case KEY_VOLUMES: expect_volumes(field, VOLUME_OF_SITE); break;
        default: check_text(key, *(char *const *)field);
        }
    }
}

static void check_values(const struct config *c)
{
    struct error e;
    check_keys(config_keys, c);
    for (size_t i = 0; i < c->module_count; i++) {
        check_keys(config_module_keys, &c->modules[i]);
        if (*c->modules[i].name == '\0' || modules_check_name(c->modules[i].name, &e) < 0)
            bug("a module '%s'", c->modules[i].name);
        for (size_t j = 0; j < i; j++)
            if (strcmp(c->modules[i].name, c->modules[j].name) == 0)
                bug("two modules '%s'", c->modules[i].name);
    }
    for (size_t i = 0; i < c->remarks.count; i++)
        expect_place(c->remarks.items[i]);
}

/* --- written out and read again ----------------------------------------------------------------------------------- */

/* A backslash at the end would continue the value: a blank line ends it. */
static void put_line(char **text, const char *prefix, const char *key, const char *value)
{
    size_t length = strlen(value);
    bool open = length > 0 && value[length - 1] == '\\';
    char *longer = text_format("%s%s%s=%s%s", *text, prefix, key, value, open ? "\\\n\n" : "\n");
    free(*text);
    *text = longer;
}

static char *join(const struct strings *list)
{
    char *text = text_copy("");
    for (size_t i = 0; i < list->count; i++) {
        char *longer = text_format("%s%s ", text, list->items[i]);
        free(text);
        text = longer;
    }
    return text_trim(text);
}

/* The value of a field as the file would have it; NULL: not set. */
static char *value_of(const struct config_key *key, const void *field)
{
    switch (key->kind) {
    case KEY_UNUSED:
    case KEY_DEPRECATED:
    case KEY_RENAMED: return NULL;
    case KEY_FLAG: return text_copy(*(const bool *)field ? "1" : "0");
    case KEY_NUMBER: return text_format("%u", *(const unsigned *)field);
    case KEY_BYTES: return text_format("%" PRIu64, *(const uint64_t *)field);
    case KEY_PROPAGATION:
        return text_copy(*(const enum mount_propagation *)field == PROPAGATE_SLAVE ? "slave" : "private");
    case KEY_LIST:
    case KEY_ASSIGNMENTS:
    case KEY_NAMES: return join(field);
    case KEY_VOLUMES: { /* whose last character may be an escaped blank */
        CLEANUP_FREE char *signature = volumes_signature(field);
        return text_format("%s%s", signature, *signature != '\0' ? ";" : "");
    }
    default: break;
    }
    const char *text = *(char *const *)field;
    return text != NULL ? text_format("%s%s", text, is_path(key) && ends_blank(text) ? "/" : "") : NULL;
}

static void put_keys(char **text, const char *prefix, const struct config_key *key, const void *base)
{
    for (; key->name != NULL; key++) {
        CLEANUP_FREE char *value = value_of(key, (const char *)base + key->offset);
        if (value != NULL && *value != '\0')
            put_line(text, prefix, key->name, value);
    }
}

static char *write_out(const struct config *c)
{
    char *text = text_copy("");
    put_keys(&text, "", config_keys, c);
    for (size_t i = 0; i < c->module_count; i++) {
        CLEANUP_FREE char *prefix = text_format("module_%s_", c->modules[i].name);
        put_keys(&text, prefix, config_module_keys, &c->modules[i]);
    }
    return text;
}

static void check_written(const struct config *c)
{
    struct config again;
    struct error e = error_untouched();
    CLEANUP_FREE char *text = write_out(c);
    if (config_parse(text, strlen(text), file, &again, &e) < 0)
        bug("refused when written out: %s", e.text);
    CLEANUP_FREE char *same = write_out(&again);
    expect_equal(same, text, "the configuration");
    if (again.image_owner_uid != c->image_owner_uid || again.module_count != c->module_count)
        bug("another owner, or other modules");
    config_free(&again);
}

/* --- modules ------------------------------------------------------------------------------------------------------ */

static void check_choice(const struct config *c, const char *asked)
{
    struct modules chosen, again;
    struct error e = error_untouched();
    memset(&chosen, 0, sizeof chosen);
    if (modules_choose(c, asked, &chosen, &e) < 0) {
        expect_message(&e);
        expect_nothing(&chosen, sizeof chosen, "a choice of modules");
        return;
    }
    for (size_t i = 0; i < chosen.count; i++)
        for (size_t j = 0; j <= i; j++)
            if (!chosen.items[i]->enabled || (i != j && chosen.items[i] == chosen.items[j]) ||
                (i != j && strings_contain(&chosen.items[i]->conflict, chosen.items[j]->name)) ||
                (i != j && strings_contain(&chosen.items[j]->conflict, chosen.items[i]->name)))
                bug("module %s should not be active", chosen.items[i]->name);
    if (chosen.count > 0) {
        if (modules_choose(c, chosen.names, &again, &e) < 0)
            bug("'%s' is refused: %s", chosen.names, e.text);
        expect_equal(again.names, chosen.names, "what was chosen");
        modules_release(&again);
    }
    modules_release(&chosen);
}

/* Two at a time, in both orders: who does not get on with whom. */
static void check_pairs(const struct config *c)
{
    enum { MOST = 6 };
    for (size_t i = 0; i < c->module_count && i < MOST; i++)
        for (size_t j = 0; j < c->module_count && j < MOST; j++) {
            CLEANUP_FREE char *pair = text_format(" %s , %s", c->modules[i].name, c->modules[j].name);
            check_choice(c, pair);
        }
}

static void check_accepted(const struct config *c, const char *asked)
{
    if (c->udi_mount == NULL || c->image_path == NULL || c->udi_root_path == NULL || c->rootfs_type == NULL ||
        c->image_owner == NULL || (c->etc_path == NULL && !c->populate_etc_dynamically))
        bug("a required key is missing");
    check_choice(c, NULL);
    check_choice(c, asked);
    check_pairs(c);
    check_written(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *last = size > 0 ? memrchr(data, 0, size) : NULL;
    size_t length = last != NULL ? (size_t)(last - data) : size;
    CLEANUP_FREE char *asked = text_of(data + length + (last != NULL), last != NULL ? size - length - 1 : 0);
    CLEANUP_FREE char *text = malloc(length + (length == 0)); /* no byte more, for the sanitizer */
    struct config config, examined;
    struct strings errors = {0};
    struct error e = error_untouched(), other = error_untouched();
    if (text == NULL)
        bug("no memory");
    memcpy(text, data, length);
    memset(&config, 0, sizeof config);
    int parsed = config_parse(text, length, file, &config, &e);
    int looked = config_examine(text, length, file, &examined, &errors, &other);
    if ((parsed == 0) != (looked == 0 && errors.count == 0))
        bug("the launcher and the checker disagree: %s", parsed < 0 ? e.text : other.text);
    if (parsed == 0) {
        check_values(&config);
        check_accepted(&config, asked);
    } else {
        expect_message(&e);
        expect_place(e.text);
        expect_nothing(&config, sizeof config, "a configuration");
        expect_equal(errors.count > 0 ? errors.items[0] : other.text, e.text, "what the checker says first");
    }
    for (size_t i = 0; i < errors.count; i++)
        expect_place(errors.items[i]);
    if (looked == 0)
        check_values(&examined);
    strings_free(&errors);
    config_free(&config);
    config_free(&examined);
    return 0;
}
