/* SPDX-License-Identifier: BSD-3-Clause */
#include <limits.h>
#include <string.h>

#include "as_user/environ.h"
#include "as_user/image.h"

const char *const image_type_names[] = {
    [IMAGE_NONE] = "", [IMAGE_DOCKER] = "docker", [IMAGE_CUSTOM] = "custom", [IMAGE_ID] = "id", [IMAGE_LOCAL] = "local",
};

enum { TYPE_COUNT = sizeof image_type_names / sizeof image_type_names[0], LONGEST_FILE_NAME = 255 };

static bool is_alphanumeric(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
}

bool image_is_id(const char *text)
{
    size_t length = 0;
    while (length <= IMAGE_ID_LENGTH && is_hex(text[length]))
        length++;
    return length == IMAGE_ID_LENGTH && text[length] == '\0';
}

/* The type whose name is the first `length` bytes of `text`, which may be 0 bytes. */
static enum image_type type_named(const char *text, size_t length)
{
    for (unsigned i = IMAGE_DOCKER; i < TYPE_COUNT; i++)
        if (strlen(image_type_names[i]) == length && memcmp(image_type_names[i], text, length) == 0)
            return (enum image_type)i;
    return IMAGE_NONE;
}

/* Section 4.2: nothing is dropped, what does not belong is named. */
static int check_alphabet(enum image_type type, const char *tag, struct error *e)
{
    for (const char *c = tag; *c != '\0'; c++) {
        if (is_alphanumeric(*c) || strchr("_:.+-@", *c) != NULL)
            continue;
        if (*c == '/' && (type == IMAGE_DOCKER || type == IMAGE_LOCAL))
            continue;
        unsigned char byte = (unsigned char)*c;
        if (byte <= ' ' || byte >= 0x7f)
            return error_set(e, 0, "byte 0x%02x cannot be in the name of an image ('%.200s')", byte, tag);
        if (*c == '/')
            return error_set(e, 0,
                             "'/' cannot be in a %s name ('%.200s'); for an image of a registry write docker:%.200s",
                             image_type_names[type], tag, tag);
        return error_set(e, 0, "'%c' cannot be in the name of an image ('%.200s')", *c, tag);
    }
    return 0;
}

static int check_id(const char *tag, struct error *e)
{
    if (image_is_id(tag))
        return 0;
    bool digits = strlen(tag) == IMAGE_ID_LENGTH && strspn(tag, "0123456789abcdefABCDEF") == IMAGE_ID_LENGTH;
    const char *hint = digits ? "write it in lower case" : "64 hex digits, as `shifterimg lookup` prints them";
    return error_set(e, 0, "'%.200s' is no image id: %s", tag, hint);
}

/* A version is a tag or a digest in the last component: a port of the registry is none. */
static int normalise(enum image_type type, const char *tag, char **out, struct error *e)
{
    if (type == IMAGE_ID) {
        *out = text_copy(tag);
        return check_id(tag, e);
    }
    if (type == IMAGE_LOCAL) {
        *out = path_clean(tag);
        return *out != NULL ? 0 : error_set(e, 0, "local:%.200s: write an absolute path without '..'", tag);
    }
    const char *slash = strrchr(tag, '/'), *last = slash != NULL ? slash + 1 : tag;
    if (tag[0] == '/' || *last == '\0')
        return error_set(e, 0, "'%.200s' is no name of an image: it %s with '/'", tag,
                         *last == '\0' ? "ends" : "starts");
    *out = text_format("%s%s", tag, strpbrk(last, ":@") == NULL ? ":latest" : "");
    return 0;
}

int image_spec_parse(const char *text, const char *default_type, struct image_spec *out, struct error *e)
{
    *out = (struct image_spec){0};
    const char *colon = strchr(text, ':'), *tag = text;
    enum image_type type = colon == NULL ? IMAGE_NONE : type_named(text, (size_t)(colon - text));
    if (type != IMAGE_NONE) {
        tag = colon + 1;
    } else if (default_type != NULL) {
        type = type_named(default_type, strlen(default_type));
        if (type == IMAGE_NONE)
            return error_set(e, 0, "defaultImageType '%.200s' is none of: docker custom id local", default_type);
    }
    if (*tag == '\0')
        return error_set(e, 0, "image '%.200s' has no name; write TYPE:NAME, such as docker:ubuntu:24.04", text);
    if (type == IMAGE_NONE)
        return error_set(e, 0, "image '%.200s' has no type and this site no default; write docker:%.200s", text, text);
    if (strlen(tag) >= PATH_MAX)
        return error_set(e, 0, "image name '%.200s...' is longer than %d bytes", tag, PATH_MAX - 1);
    if (check_alphabet(type, tag, e) < 0 || normalise(type, tag, &out->tag, e) < 0) {
        image_spec_free(out);
        return -1;
    }
    out->type = type;
    out->request = text_copy(text);
    return 0;
}

/* `text` comes from `source`, an option or variable that the message names. */
static int parse_from(const char *source, const char *text, const char *default_type, struct image_spec *out,
                      struct error *e)
{
    struct error cause;
    if (image_spec_parse(text, default_type, out, &cause) == 0)
        return 0;
    return error_set(e, 0, "%s: %s", source, cause.text);
}

static const char *variable(const struct strings *env, const char *prefix, const char *name)
{
    CLEANUP_FREE char *full = text_format("%sSHIFTER_%s", prefix, name);
    const char *value = environ_get(env, full);
    return value != NULL && *value != '\0' ? value : NULL;
}

/* A type and a name, as a workload manager sets them; the request says what the user wrote, when it is known. */
static int parse_pair(const char *prefix, const char *type, const char *image, const char *request,
                      struct image_spec *out, struct error *e)
{
    CLEANUP_FREE char *text = text_format("%s:%s", type, image);
    CLEANUP_FREE char *source = text_format("%sSHIFTER_IMAGE with %sSHIFTER_IMAGETYPE", prefix, prefix);
    if (type_named(type, strlen(type)) == IMAGE_NONE)
        return error_set(e, 0, "%sSHIFTER_IMAGETYPE: '%.200s' is none of: docker custom id local", prefix, type);
    if (parse_from(source, text, NULL, out, e) < 0)
        return -1;
    if (request == NULL && out->type != IMAGE_ID)
        return 0;
    free(out->request);
    out->request = request != NULL ? text_copy(request) : NULL;
    return 0;
}

/* One family of variables; 1 when it names no image. */
static int parse_family(const struct strings *env, const char *prefix, const char *default_type,
                        struct image_spec *out, struct error *e)
{
    const char *type = variable(env, prefix, "IMAGETYPE"), *image = variable(env, prefix, "IMAGE");
    const char *request = variable(env, prefix, "IMAGEREQUEST");
    if (type != NULL && image != NULL)
        return parse_pair(prefix, type, image, request, out, e);
    CLEANUP_FREE char *source = text_format("%sSHIFTER_IMAGE%s", prefix, request != NULL ? "REQUEST" : "");
    if (request != NULL)
        return parse_from(source, request, default_type, out, e);
    if (image == NULL)
        return 1;
    /* An id as a container's environment has it; no repository can be called that (distribution reference grammar). */
    return image_is_id(image) ? parse_pair(prefix, "id", image, NULL, out, e)
                              : parse_from(source, image, default_type, out, e);
}

int image_spec_select(const char *option, const struct strings *env, const char *default_type, struct image_spec *out,
                      struct error *e)
{
    *out = (struct image_spec){0};
    if (option != NULL)
        return parse_from("--image", option, default_type, out, e);
    const char *plain = environ_get(env, "SHIFTER");
    if (plain != NULL && *plain != '\0')
        return parse_from("SHIFTER", plain, default_type, out, e);
    int result = parse_family(env, "", default_type, out, e);
    if (result == 1)
        result = parse_family(env, "SLURM_SPANK_", default_type, out, e);
    return result == 1 ? 0 : result;
}

void image_spec_free(struct image_spec *spec)
{
    free(spec->tag);
    free(spec->request);
    *spec = (struct image_spec){0};
}

char *image_tag_encode(const char *tag)
{
    char *out = text_alloc(3 * strlen(tag) + 1), *to = out;
    for (const char *c = tag; *c != '\0'; c++) {
        if (is_alphanumeric(*c) || strchr("_-+", *c) != NULL || (*c == '.' && c > tag)) {
            *to++ = *c;
        } else {
            static const char digits[] = "0123456789ABCDEF";
            unsigned char byte = (unsigned char)*c;
            *to++ = '%';
            *to++ = digits[byte >> 4];
            *to++ = digits[byte & 15];
        }
    }
    if (to - out <= LONGEST_FILE_NAME)
        return out;
    free(out);
    return NULL;
}
