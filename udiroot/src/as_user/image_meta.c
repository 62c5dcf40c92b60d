/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "as_user/image.h"
#include "as_user/lines.h"
#include "base/file.h"

enum { MOST_IDS = 1000, META_LIMIT = 16 << 20 /* bytes */ };

/* Keys of both gateways. A value that ends in a backslash does not swallow the line after it: section 6.2, W-15. */
static const char *const keys[] = {"FORMAT", "ENTRY",   "CMD", "WORKDIR", "USERACL", "GROUPACL",
                                   "ENV",    "PRIVATE", "USER", "VOLUME",  NULL};

static bool parse_id(const char *text, uint32_t *out)
{
    uint64_t number = 0;
    const char *c = text;
    for (; *c >= '0' && *c <= '9' && number <= UINT32_MAX; c++)
        number = 10 * number + (uint64_t)(*c - '0');
    *out = (uint32_t)number;
    return c > text && *c == '\0' && number < UINT32_MAX; /* (uid_t)-1 means nobody */
}

/* Comma separated ids. What is no number is skipped, but a list of which nothing is left must not make the image
 * public: section 6.3. */
static int parse_acl(char *value, uint32_t **ids, size_t *count, struct error *e)
{
    bool something = false;
    *count = 0;
    for (char *next = value, *item; (item = strsep(&next, ",")) != NULL;) {
        uint32_t id;
        item = text_trim(item);
        something = something || *item != '\0';
        if (!parse_id(item, &id))
            continue;
        if (*count == MOST_IDS)
            return error_set(e, 0, "there are more than %d ids", MOST_IDS);
        *ids = text_grow(*ids, *count + 1, sizeof **ids);
        (*ids)[(*count)++] = id;
    }
    return something && *count == 0 ? error_set(e, 0, "there is no numeric id") : 0;
}

static void replace(char **field, const char *value)
{
    free(*field);
    *field = *value != '\0' ? text_copy(value) : NULL;
}

static int parse_list(struct strings *list, const char *value, struct error *e)
{
    strings_free(list);
    return image_list_parse(value, list, e);
}

static bool sets_variable(const char *text)
{
    return text[0] != '=' && strchr(text, '=') != NULL;
}

/* What decides about access comes once: gateways of old let a line end in an image's ENV write it again (sec-67). */
static int check_once(unsigned *seen, const char *key, struct error *e)
{
    static const char *const single[] = {"FORMAT", "USERACL", "GROUPACL", "PRIVATE"};
    for (unsigned i = 0; i < sizeof single / sizeof single[0]; i++) {
        if (strcmp(key, single[i]) != 0)
            continue;
        if ((*seen & 1U << i) != 0)
            return error_set(e, 0, "the key is there twice");
        *seen |= 1U << i;
    }
    return 0;
}

static int assign(struct image_meta *meta, const struct line *line, struct error *e)
{
    const char *key = line->key;
    if (strcmp(key, "FORMAT") == 0)
        replace(&meta->format, line->value);
    else if (strcmp(key, "WORKDIR") == 0)
        replace(&meta->workdir, line->value);
    else if (strcmp(key, "PRIVATE") == 0)
        meta->restricted = meta->restricted || strcmp(line->value, "0") != 0;
    else if (strcmp(key, "ENTRY") == 0)
        return parse_list(&meta->entry, line->value, e);
    else if (strcmp(key, "CMD") == 0)
        return parse_list(&meta->cmd, line->value, e);
    else if (strcmp(key, "USERACL") == 0)
        return parse_acl(line->value, &meta->user_acl, &meta->user_acl_count, e);
    else if (strcmp(key, "GROUPACL") == 0)
        return parse_acl(line->value, &meta->group_acl, &meta->group_acl_count, e);
    else if (strcmp(key, "ENV") == 0 && sets_variable(line->value)) /* others are ignored: section 11.2, step 3 */
        strings_add(&meta->environ, line->value);
    return 0;
}

static int read_lines(const char *text, size_t length, const char *name, struct image_meta *out, struct error *e)
{
    struct lines lines;
    struct line line;
    enum line_kind kind;
    unsigned seen = 0;
    int result = 0;
    lines_begin(&lines, text, length, ':', keys);
    while (result == 0 && (kind = lines_next(&lines, &line)) != LINE_END) {
        struct error cause;
        if (kind == LINE_REMARK)
            continue;
        result = check_once(&seen, line.key, &cause) < 0 ? -1 : assign(out, &line, &cause);
        if (result < 0)
            (void)error_set(e, 0, "the metadata of image %.200s is damaged, line %u, %.200s: %s; pull the image again",
                            name, line.number, line.key, cause.text);
    }
    lines_end(&lines);
    return result;
}

int image_meta_parse(const char *text, size_t length, const char *name, struct image_meta *out, struct error *e)
{
    *out = (struct image_meta){.name = text_copy(name)};
    int result = 0;
    if (length > 0 && memchr(text, '\0', length) != NULL)
        result = error_set(e, 0, "the metadata of image %.200s has a NUL byte; pull the image again", name);
    if (result == 0)
        result = read_lines(text, length, name, out, e);
    out->restricted = out->restricted || out->user_acl_count > 0 || out->group_acl_count > 0;
    if (out->format == NULL)
        out->format = text_copy("VFS"); /* what a file without FORMAT means: section 6.2 */
    if (result < 0)
        image_meta_free(out);
    return result;
}

void image_meta_free(struct image_meta *meta)
{
    free(meta->name);
    free(meta->format);
    strings_free(&meta->environ);
    strings_free(&meta->entry);
    strings_free(&meta->cmd);
    free(meta->workdir);
    free(meta->user_acl);
    free(meta->group_acl);
    *meta = (struct image_meta){0};
}

int image_read_meta(struct image *image, struct error *e)
{
    size_t length;
    CLEANUP_FREE char *text = file_read(image->meta_fd, 0, META_LIMIT, &length);
    return text != NULL ? image_meta_parse(text, length, image->id, &image->meta, e)
                        : error_set(e, errno, "cannot read the metadata of image %s", image->id);
}

/* The same words whether there is no such image or the user may not know it: his question must not tell him which. */
int image_unavailable(const char *name, struct error *e)
{
    return error_set(e, 0,
                     "image %.200s is not available to you: it is not in the image store or you are not allowed to use "
                     "it; pull it, or ask who pulled it",
                     name);
}

int image_check_acl(const struct image_meta *meta, uid_t uid, gid_t gid, const gid_t *groups, size_t group_count,
                    struct error *e)
{
    if (!meta->restricted)
        return 0;
    for (size_t i = 0; i < meta->user_acl_count; i++)
        if (meta->user_acl[i] == uid)
            return 0;
    for (size_t i = 0; i < meta->group_acl_count; i++) {
        if (meta->group_acl[i] == gid)
            return 0;
        for (size_t j = 0; j < group_count; j++)
            if (meta->group_acl[i] == groups[j])
                return 0;
    }
    return image_unavailable(meta->name, e);
}

int image_local_describe(const struct config *config, const char *path, struct image *out, struct error *e)
{
    *out = (struct image){.file_fd = -1, .meta_fd = -1};
    if (!config->allow_local_chroot)
        return error_set(e, 0, "local:%s: this system has no local: images (allowLocalChroot is 0 in udiRoot.conf)",
                         path);
    out->id = text_copy(path);
    /* Others who see the node's udiMount may have no right to it. */
    out->meta = (struct image_meta){.name = text_copy(path), .format = text_copy("directory"), .restricted = true};
    return 0;
}
