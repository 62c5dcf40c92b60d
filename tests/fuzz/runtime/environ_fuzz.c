/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Environments: files of --env-file, the caller's own, and what a site does to one.
 *
 * Input: the text of either; its lines are then set, appended, prepended or unset, by their first byte.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "as_user/environ.h"
#include "expect.h"

static int file_of(const uint8_t *data, size_t size)
{
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size || lseek(fd, 0, SEEK_SET) != 0)
        bug("no file in memory");
    return fd;
}

static size_t occurrences(const struct strings *env, const char *name, size_t length)
{
    size_t count = 0;
    for (size_t i = 0; i < env->count; i++)
        count += strncmp(env->items[i], name, length) == 0 && env->items[i][length] == '=';
    return count;
}

static void check_file(const uint8_t *data, size_t size, struct strings *items)
{
    struct error e = error_untouched();
    if (environ_read_file(file_of(data, size), "env", items, &e) < 0) {
        expect_message(&e);
        if (strstr(e.text, "env") == NULL)
            bug("a message does not name the file: %s", e.text);
        return;
    }
    struct strings again = {0};
    char *text = text_copy("# again\n");
    for (size_t i = 0; i < items->count; i++) {
        if (environ_check(items->items[i], &e) < 0 || strchr(items->items[i], '\n') != NULL)
            bug("'%s' was accepted", items->items[i]);
        char *longer = text_format("%s%s\n", text, items->items[i]);
        free(text);
        text = longer;
    }
    if (environ_read_file(file_of((const uint8_t *)text, strlen(text)), "env", &again, &e) < 0)
        bug("refused when written out: %s", e.text);
    expect_equal_lists(&again, items, "the file");
    strings_free(&again);
    free(text);
}

static char *const kept_names[] = {"A", "PATH", "LD_LIBRARY_PATH", "B", NULL};

static void check_process(const uint8_t *data, size_t size)
{
    const struct strings names = {.items = (char **)(uintptr_t)kept_names, .count = 4};
    struct strings kept = {0}, all = texts_of(data, size, size + 1);
    struct error e = error_untouched();
    if (environ_read_process(file_of(data, size), &names, &kept, &e) < 0)
        bug("the environment of a process is refused: %s", e.text);
    size_t found = 0;
    for (size_t i = 0; i < names.count; i++) {
        const char *last = NULL;
        size_t length = strlen(names.items[i]);
        for (size_t j = 0; j < all.count; j++)
            if (strncmp(all.items[j], names.items[i], length) == 0 && all.items[j][length] == '=')
                last = all.items[j] + length + 1;
        expect_equal(environ_get(&kept, names.items[i]), last, names.items[i]);
        found += last != NULL;
    }
    if (kept.count != found)
        bug("%zu variables and not %zu", kept.count, found);
    strings_free(&kept);
    strings_free(&all);
}

/* One change, and what the contract says of it: sections 11.1 and 11.3. */
static void change(struct strings *env, const char *item)
{
    size_t length = strcspn(item, "=");
    CLEANUP_FREE char *name = text_copy_n(item, length);
    const char *old = environ_get(env, name), *added = item[length] == '=' ? item + length + 1 : NULL;
    char *expected;
    switch ((unsigned char)item[0] % 4) {
    case 0:
        expected = text_copy(added != NULL ? added : "");
        environ_set(env, item);
        break;
    case 1:
    case 2: {
        bool first = (unsigned char)item[0] % 4 == 1, both = old != NULL && *old != '\0' && added != NULL && *added != '\0';
        const char *one = old != NULL && *old != '\0' ? old : added != NULL ? added : "";
        expected = both ? text_format("%s:%s", first ? added : old, first ? old : added) : text_copy(one);
        (first ? environ_prepend : environ_append)(env, item);
        break;
    }
    default:
        environ_unset(env, name);
        if (environ_get(env, name) != NULL)
            bug("%s is still there", name);
        return;
    }
    if (added != NULL) {
        expect_equal(environ_get(env, name), expected, name);
        if (occurrences(env, item, length) != 1)
            bug("%s is there %zu times", name, occurrences(env, item, length));
    }
    free(expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct strings items = {0}, env = {0};
    strings_add(&env, "PATH=/bin");
    check_file(data, size, &items);
    check_process(data, size);
    for (size_t i = 0; i < items.count; i++)
        change(&env, items.items[i]);
    if (env.items != NULL && env.items[env.count] != NULL)
        bug("the list has no end");
    strings_free(&env);
    strings_free(&items);
    return 0;
}
