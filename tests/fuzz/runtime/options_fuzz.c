/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The command line: refused, or data that the launcher can take as it is; no word of the command is touched.
 *
 * Input: the words behind "shifter", with a NUL between them.
 */
#include "as_user/environ.h"
#include "as_user/options.h"
#include "expect.h"

enum { MOST_WORDS = 64 };

static void expect_no_empty(const char *value, const char *what)
{
    if (value != NULL && *value == '\0')
        bug("%s is empty", what);
}

static void check_accepted(const struct options *o)
{
    struct error e;
    expect_no_empty(o->image, "--image");
    expect_no_empty(o->modules, "--module");
    expect_no_empty(o->entrypoint_program, "--entrypoint");
    expect_no_empty(o->workdir_path, "--workdir");
    expect_no_empty(o->env_file, "--env-file");
    for (size_t i = 0; i < o->volumes.count; i++)
        expect_no_empty(o->volumes.items[i], "--volume");
    if ((o->entrypoint_program != NULL && !o->entrypoint) || (o->workdir_path != NULL && !o->workdir))
        bug("a value without its option");
    if (o->explain != NULL && strcmp(o->explain, "text") != 0 && strcmp(o->explain, "json") != 0)
        bug("--explain=%s", o->explain);
    for (size_t i = 0; i < o->environ.count; i++)
        if (environ_check(o->environ.items[i], &e) < 0)
            bug("--env: %s", e.text);
    for (size_t i = 0; i < o->kept.count; i++)
        if (*o->kept.items[i] == '\0' || strchr(o->kept.items[i], '=') != NULL)
            bug("--keepenv=%s", o->kept.items[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct strings words = {0}, given = texts_of(data, size, MOST_WORDS);
    char *before[MOST_WORDS + 2];
    strings_add(&words, "shifter");
    for (size_t i = 0; i < given.count; i++)
        strings_add(&words, given.items[i]);
    memcpy(before, words.items, (words.count + 1) * sizeof *before);
    struct options options;
    struct error e = error_untouched();
    if (options_parse((int)words.count, words.items, &options, &e) < 0) {
        expect_message(&e);
        if (options.volumes.count + options.environ.count + options.kept.count != 0)
            bug("a refused command line left lists");
    } else {
        check_accepted(&options);
        if (options.command < words.items + 1 || options.command > words.items + words.count)
            bug("the command is not in the command line");
        options_free(&options);
    }
    if (memcmp(before, words.items, (words.count + 1) * sizeof *before) != 0)
        bug("words changed places");
    for (size_t i = 0; i < given.count; i++)
        expect_equal(words.items[i + 1], given.items[i], "a word");
    strings_free(&given);
    strings_free(&words);
    return 0;
}
