/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Volume maps: what is accepted keeps the rules, and its signature is read back as the same maps, in an order that mounts
 * the same.
 *
 * Input: values of --volume with a NUL between them; the first one also as a site's.
 */
#include "expect.h"

enum { MOST_COMPARED = 48, MOST_TEXTS = 16 };

static bool overlap(const char *a, const char *b)
{
    size_t short_one = strlen(a) < strlen(b) ? strlen(a) : strlen(b);
    const char *longer = strlen(a) < strlen(b) ? b : a;
    if (short_one == 1) /* "/" */
        return true;
    return strncmp(a, b, short_one) == 0 && (longer[short_one] == '\0' || longer[short_one] == '/');
}

static bool depend(const struct volume *a, const struct volume *b)
{
    return overlap(a->to, b->to) || overlap(a->to, b->from) || overlap(a->from, b->to);
}

/* The same maps; where one matters to another, in the same order. */
static void expect_same_mounts(const struct volumes *given, const struct volumes *read)
{
    size_t place[MOST_COMPARED];
    bool taken[MOST_COMPARED] = {false};
    if (given->count != read->count)
        bug("%zu maps became %zu", given->count, read->count);
    for (size_t i = 0; i < given->count && given->count <= MOST_COMPARED; i++) {
        size_t j = 0;
        while (j < read->count && (taken[j] || !volume_equal(&given->items[i], &read->items[j])))
            j++;
        if (j == read->count)
            bug("the map %s:%s is lost", given->items[i].from, given->items[i].to);
        taken[j] = true;
        place[i] = j;
        for (size_t k = 0; k < i; k++)
            if (place[k] > j && depend(&given->items[k], &given->items[i]))
                bug("%s would be mounted before %s", given->items[i].to, given->items[k].to);
    }
}

static void check_signature(const struct volumes *volumes, enum volume_origin origin)
{
    struct volumes read = {0};
    struct error e = error_untouched();
    CLEANUP_FREE char *signature = volumes_signature(volumes);
    if (volumes_parse(signature, origin, &read, &e) < 0)
        bug("the signature %s is refused: %s", signature, e.text);
    expect_volumes(&read, origin);
    expect_same_mounts(volumes, &read);
    CLEANUP_FREE char *again = volumes_signature(&read);
    expect_equal(again, signature, "the signature of what a signature says");
    volumes_free(&read);
}

static void check(const char *text, enum volume_origin origin)
{
    struct volumes volumes = {0};
    struct error e = error_untouched();
    if (volumes_parse("/before:/data", origin, &volumes, &e) < 0)
        bug("a good map is refused: %s", e.text);
    if (volumes_parse(text, origin, &volumes, &e) == 0) {
        expect_volumes(&volumes, origin);
        check_signature(&volumes, origin);
    } else {
        expect_message(&e);
        if (volumes.count != 1)
            bug("a refused text left %zu maps", volumes.count - 1);
    }
    volumes_free(&volumes);
}

/* Equal signatures mean equal containers: the list must be in the order of its text. */
static void check_of_user(const struct strings *texts)
{
    struct volumes volumes = {0}, again = {0};
    struct error e = error_untouched();
    if (volumes_of_user(texts, &volumes, &e) < 0) {
        expect_message(&e);
        if (volumes.count != 0)
            bug("refused texts left %zu maps", volumes.count);
        volumes_free(&volumes);
        return;
    }
    expect_volumes(&volumes, VOLUME_OF_USER);
    CLEANUP_FREE char *signature = volumes_signature(&volumes);
    if (strlen(signature) > VOLUMES_TEXT_LIMIT)
        bug("a signature of %zu bytes", strlen(signature));
    struct strings one = {0};
    strings_add(&one, signature);
    if (volumes_of_user(&one, &again, &e) < 0)
        bug("the signature %s is refused: %s", signature, e.text);
    for (size_t i = 0; i < volumes.count; i++)
        if (again.count != volumes.count || !volume_equal(&again.items[i], &volumes.items[i]))
            bug("equal signatures, mounted in another order");
    strings_free(&one);
    volumes_free(&again);
    volumes_free(&volumes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct strings texts = texts_of(data, size, MOST_TEXTS);
    check(texts.items[0], VOLUME_OF_USER);
    check(texts.items[0], VOLUME_OF_SITE);
    check_of_user(&texts);
    strings_free(&texts);
    return 0;
}
