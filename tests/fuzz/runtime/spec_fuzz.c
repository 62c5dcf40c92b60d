/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Which image: what is accepted is within the alphabet, means the same when written out, and has a name in the index that
 * can be read back.
 *
 * Input, with a NUL between them: a specification, the site's default type (empty: none), then variables.
 */
#include <limits.h>

#include "as_user/image.h"
#include "expect.h"

enum { MOST_TEXTS = 12 };

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void check_encoding(const char *tag)
{
    CLEANUP_FREE char *name = image_tag_encode(tag);
    if (name == NULL)
        return;
    if (*name == '\0' || *name == '.' || strchr(name, '/') != NULL || strlen(name) > NAME_MAX)
        bug("'%s' is no file name", name);
    char read[NAME_MAX + 1], *to = read;
    for (const char *c = name; *c != '\0'; to++) {
        if (*c != '%') {
            *to = *c++;
            continue;
        }
        if (hex(c[1]) < 0 || hex(c[2]) < 0)
            bug("'%s' cannot be read back", name);
        *to = (char)(hex(c[1]) * 16 + hex(c[2]));
        c += 3;
    }
    *to = '\0';
    expect_equal(read, tag, "what the file name says");
}

static void check_accepted(const struct image_spec *spec)
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:.+-@/";
    bool slashes = spec->type == IMAGE_DOCKER || spec->type == IMAGE_LOCAL;
    if (spec->type == IMAGE_NONE || *spec->tag == '\0' || spec->tag[strspn(spec->tag, alphabet)] != '\0' ||
        (!slashes && strchr(spec->tag, '/') != NULL))
        bug("an image of type '%s' called '%s'", image_type_names[spec->type], spec->tag);
    if (spec->type == IMAGE_ID && (strlen(spec->tag) != 64 || spec->tag[strspn(spec->tag, "0123456789abcdef")] != '\0'))
        bug("an id '%s'", spec->tag);
    if (spec->type == IMAGE_LOCAL)
        expect_clean_path(spec->tag, "a local: image");
    if (strlen(spec->tag) > PATH_MAX + strlen(":latest"))
        bug("a name of %zu bytes", strlen(spec->tag));
    struct image_spec again;
    struct error e = error_untouched();
    CLEANUP_FREE char *written = text_format("%s:%s", image_type_names[spec->type], spec->tag);
    if (strlen(spec->tag) < PATH_MAX && image_spec_parse(written, NULL, &again, &e) < 0)
        bug("'%s' is refused when written out: %s", written, e.text);
    if (strlen(spec->tag) >= PATH_MAX)
        return;
    if (again.type != spec->type)
        bug("'%s' is of type %s", written, image_type_names[again.type]);
    expect_equal(again.tag, spec->tag, "the same image written out");
    expect_equal(again.request, written, "the request");
    image_spec_free(&again);
    check_encoding(spec->tag);
}

static void check_select(const char *option, const struct strings *env, const char *type)
{
    struct image_spec spec;
    struct error e = error_untouched();
    memset(&spec, 0, sizeof spec);
    if (image_spec_select(option, env, type, &spec, &e) < 0) {
        expect_message(&e);
        expect_nothing(&spec, sizeof spec, "a specification");
    } else if (spec.type != IMAGE_NONE) {
        check_accepted(&spec);
    } else if (option != NULL) {
        bug("--image=%s names nothing", option);
    }
    image_spec_free(&spec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct strings texts = texts_of(data, size, MOST_TEXTS);
    const char *type = texts.count > 1 && *texts.items[1] != '\0' ? texts.items[1] : NULL;
    struct strings env = {0};
    for (size_t i = 2; i < texts.count; i++)
        strings_add(&env, texts.items[i]);
    check_select(texts.items[0], &env, type);
    check_select(NULL, &env, type);
    if (image_is_id(texts.items[0]) != (strlen(texts.items[0]) == 64 && strspn(texts.items[0], "0123456789abcdef") == 64))
        bug("'%s' is taken for an id, or not", texts.items[0]);
    strings_free(&env);
    strings_free(&texts);
    return 0;
}
