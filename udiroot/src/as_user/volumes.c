/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/volumes.h"

#include <string.h>
#include <strings.h>

#include "base/text.h"

enum { DEFAULT_CACHE_BLOCK = 1 << 20, QUOTED = 200 /* bytes of a map in a message */, MOST_MAPS = 1000 };

/* In the order of the signature. */
static const struct {
    const char *name;
    unsigned flag;
    bool for_users;
} flags[] = {
    {"ro", VOLUME_RO, true},
    {"rec", VOLUME_REC, false},
    {"perNodeCache", VOLUME_PER_NODE_CACHE, true},
    {"slave", VOLUME_SLAVE, false},
    {"private", VOLUME_PRIVATE, false},
};
enum { FLAG_COUNT = sizeof flags / sizeof flags[0] };

/* One map while it is read. `text` is what the messages quote. */
struct map {
    const char *text;
    size_t length;
    enum volume_origin origin;
    struct volume volume;
};

static int bad(const struct map *m, struct error *e, const char *why)
{
    return error_set(e, 0, "volume map '%.*s' %s", m->length < QUOTED ? (int)m->length : QUOTED, m->text, why);
}

static bool ends_map(char c, enum volume_origin origin)
{
    return c == ';' || (origin == VOLUME_OF_SITE && text_is_blank(c));
}

/* Finds the end of the map that starts at m->text, its length without blanks at the end. */
static const char *find_end(struct map *m, struct error *e)
{
    bool quoted = m->text[0] == '"';
    const char *c = m->text + quoted, *last = c;
    while (*c != '\0' && (quoted ? *c != '"' : !ends_map(*c, m->origin))) {
        bool escaped = *c == '\\';
        if (escaped && *++c == '\0')
            break;
        if (!text_is_blank(*c++) || escaped)
            last = c;
    }
    m->length = (size_t)((quoted ? c + 1 : last) - m->text);
    if (*c == '\0' && (quoted || (c > m->text && c[-1] == '\\' && last != c))) {
        m->length = (size_t)(c - m->text);
        (void)bad(m, e,
                  quoted ? "has an open quote; close it"
                         : "ends in a backslash; write two of them for a name that does");
        return NULL;
    }
    if (quoted && *++c != ';' && *c != '\0' && !text_is_blank(*c)) {
        (void)bad(m, e, "goes on after its closing quote; separate maps with ';'");
        return NULL;
    }
    return c;
}

/* Cuts the next field off at an unescaped ':', takes the backslashes out of it; NULL when there is none left. */
static char *next_field(char **rest)
{
    char *field = *rest, *to = field;
    if (field == NULL)
        return NULL;
    const char *from = field;
    for (; *from != '\0' && *from != ':'; from++) {
        if (*from == '\\' && from[1] != '\0')
            from++;
        *to++ = *from;
    }
    *rest = *from == ':' ? field + (from - field) + 1 : NULL;
    *to = '\0';
    return field;
}

static int take_path(const struct map *m, const char *text, char **out, struct error *e)
{
    for (const char *c = text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return bad(m, e, "has a control character in a path; write the path without it");
    *out = path_clean(text);
    if (*out == NULL)
        return bad(m, e, text[0] == '/' ? "has '..' in a path; write the path without it"
                                        : "has a path that does not start with '/'; write FROM:TO with absolute paths");
    return 0;
}

static int take_cache_setting(struct map *m, const char *setting, const char *value, struct error *e)
{
    if (strcasecmp(setting, "size") == 0 || strcasecmp(setting, "bs") == 0) {
        uint64_t *where = strcasecmp(setting, "bs") == 0 ? &m->volume.cache_block : &m->volume.cache_size;
        if (text_parse_size(value, where) < 0 || *where == 0)
            return bad(m, e, "has a bad size; write a number above 0 and perhaps one of k, m, g, t, p, e");
        return 0;
    }
    if (strcasecmp(setting, "fs") == 0 || strcasecmp(setting, "fstype") == 0)
        return strcasecmp(value, "xfs") == 0 ? 0 : bad(m, e, "names another file system than xfs for perNodeCache");
    if (strcasecmp(setting, "method") == 0)
        return strcasecmp(value, "loop") == 0 ? 0 : bad(m, e, "names another method than loop for perNodeCache");
    return bad(m, e, "has an unknown setting of perNodeCache; there are size, bs, fs and method");
}

static int take_flag(struct map *m, const char *name, struct error *e)
{
    size_t i = 0;
    while (i < FLAG_COUNT && strcasecmp(flags[i].name, name) != 0)
        i++;
    if (i == FLAG_COUNT)
        return bad(m, e, "has an unknown flag; there are ro, rec, slave, private and perNodeCache");
    if (m->origin == VOLUME_OF_USER && !flags[i].for_users)
        return bad(m, e, "has a flag that only the site may use; users have ro and perNodeCache");
    if ((m->volume.flags & flags[i].flag) != 0)
        return bad(m, e, "has the same flag twice; write it once");
    m->volume.flags |= flags[i].flag;
    if ((m->volume.flags & VOLUME_SLAVE) != 0 && (m->volume.flags & VOLUME_PRIVATE) != 0)
        return bad(m, e, "is both slave and private; choose one");
    return 0;
}

/* Cuts `word` at its '='; what stands behind it, or NULL. */
static char *cut_value(char *word)
{
    char *equals = strchr(word, '=');
    if (equals != NULL)
        *equals++ = '\0';
    return equals;
}

/* `ro`, `ro,rec`, or `perNodeCache=size=1g,bs=1m,ro`: behind perNodeCache a word with '=' is one of its settings. */
static int take_flags(struct map *m, char *field, struct error *e)
{
    bool of_cache = false;
    for (char *next = field, *word; (word = strsep(&next, ",")) != NULL;) {
        char *value = cut_value(word);
        if (value != NULL && !of_cache) {
            if (strcasecmp(word, "perNodeCache") != 0)
                return bad(m, e, "gives a setting to a flag that takes none; only perNodeCache has settings");
            of_cache = true;
            if (take_flag(m, word, e) < 0)
                return -1;
            word = value;
            if ((value = cut_value(word)) == NULL)
                return bad(m, e, "needs perNodeCache=size=SIZE");
        }
        if ((value != NULL ? take_cache_setting(m, word, value, e) : take_flag(m, word, e)) < 0)
            return -1;
    }
    return 0;
}

static bool is_one_of(const char *path, const char *const *list)
{
    while (*list != NULL && strcmp(path, *list) != 0)
        list++;
    return *list != NULL;
}

int volumes_check_target(const char *to, enum volume_origin origin, struct error *e)
{
    static const char *const users_below[] = {"/etc", "/var", "/opt/udiImage", "/dev", "/proc", "/sys"};
    static const char *const users_exact[] = {"/", "/opt", "/tmp", NULL};
    static const char *const site_exact[] = {
        "/", "/opt", "/etc", "/var", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", NULL};
    bool of_site = origin == VOLUME_OF_SITE;
    if (is_one_of(to, of_site ? site_exact : users_exact))
        return error_set(e, 0, "%s cannot mount at %s itself; choose another target", of_site ? "siteFs" : "users", to);
    if (of_site || strcmp(to, "/var/tmp") == 0)
        return 0;
    for (size_t i = 0; i < sizeof users_below / sizeof users_below[0]; i++)
        if (path_is_below(to, users_below[i]))
            return error_set(e, 0, "users cannot mount at or below %s; choose another target", users_below[i]);
    return 0;
}

static int check(const struct map *m, struct error *e)
{
    struct error cause;
    const struct volume *v = &m->volume;
    if (m->origin == VOLUME_OF_USER && strcmp(v->from, "/") == 0)
        return bad(m, e, "names the whole container as source; name a directory in it");
    if ((v->flags & VOLUME_PER_NODE_CACHE) != 0 && v->cache_size == 0)
        return bad(m, e, "needs perNodeCache=size=SIZE");
    if (volumes_check_target(v->to, m->origin, &cause) < 0)
        return error_set(e, 0, "volume map '%.*s': %s", m->length < QUOTED ? (int)m->length : QUOTED, m->text,
                         cause.text);
    return 0;
}

static int read_map(struct map *m, struct error *e)
{
    bool quoted = m->text[0] == '"';
    CLEANUP_FREE char *copy = text_copy_n(m->text + quoted, m->length - 2 * (size_t)quoted);
    char *rest = copy;
    const char *from = next_field(&rest), *to = next_field(&rest);
    if (from == NULL || (to == NULL && m->origin == VOLUME_OF_USER))
        return bad(m, e, "has no target; write FROM:TO");
    m->volume.cache_block = DEFAULT_CACHE_BLOCK;
    if (take_path(m, from, &m->volume.from, e) < 0 || take_path(m, to != NULL ? to : from, &m->volume.to, e) < 0)
        return -1;
    for (char *field; (field = next_field(&rest)) != NULL;)
        if (take_flags(m, field, e) < 0)
            return -1;
    return check(m, e);
}

static void forget(struct volumes *v, size_t from)
{
    for (size_t i = from; i < v->count; i++) {
        free(v->items[i].from);
        free(v->items[i].to);
    }
    v->count = from;
}

int volumes_parse(const char *text, enum volume_origin origin, struct volumes *out, struct error *e)
{
    size_t before = out->count;
    for (const char *next = text;;) {
        while (*next == ';' || text_is_blank(*next))
            next++;
        if (*next == '\0')
            return 0;
        struct map m = {.text = next, .origin = origin};
        next = find_end(&m, e);
        int result = next == NULL ? -1 : read_map(&m, e);
        out->items = text_grow(out->items, out->count + 1, sizeof *out->items);
        out->items[out->count++] = m.volume;
        if (result == 0 && out->count > MOST_MAPS)
            result = error_set(e, 0, "there are more than %d volume maps", MOST_MAPS);
        if (result < 0)
            break;
    }
    forget(out, before);
    return -1;
}

int volumes_of_user(const struct strings *texts, struct volumes *out, struct error *e)
{
    struct volumes given = {0};
    int result = 0;
    for (size_t i = 0; i < texts->count && result == 0; i++)
        result = volumes_parse(texts->items[i], VOLUME_OF_USER, &given, e);
    CLEANUP_FREE char *signature = volumes_signature(&given);
    volumes_free(&given);
    if (result == 0 && strlen(signature) > VOLUMES_TEXT_LIMIT)
        result = error_set(e, 0, "the volume maps have more than %d characters", VOLUMES_TEXT_LIMIT);
    return result < 0 ? -1 : volumes_parse(signature, VOLUME_OF_USER, out, e);
}

void volumes_free(struct volumes *v)
{
    forget(v, 0);
    free(v->items);
    *v = (struct volumes){0};
}
