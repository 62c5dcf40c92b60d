/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What a prepared environment is recognised by: the text of its plan, and the line in /var/shifterConfig.json, say again
 * what they were made from.
 *
 * Input, with a NUL between them: more lines for a configuration, --module, --volume, a holder.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "as_root/state.h"
#include "as_user/plan.h"
#include "as_user/prepared.h"
#include "expect.h"

static const char base[] = "udiMount=/var/udiMount\nimagePath=/images\nudiRootPath=/usr\nrootfsType=tmpfs\n"
                           "etcPath=/etc/shifter/files\n";
static const char identifier[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/* The JSON string after `key`, which is there once. */
static char *string_of(const char *json, const char *key)
{
    CLEANUP_FREE char *start = text_format("\"%s\":\"", key);
    const char *c = strstr(json, start);
    if (c == NULL)
        bug("%s has no %s", json, key);
    c += strlen(start);
    char *out = text_alloc(strlen(c) + 1), *to = out;
    unsigned byte;
    while (*c != '"') {
        if ((unsigned char)*c < ' ')
            bug("a control character in %s", json);
        if (sscanf(c, "\\udc%2x", &byte) == 1) { /* which is no part of a character: PEP 383 */
            *to++ = (char)byte;
            c += 6;
            continue;
        }
        c += *c == '\\';
        *to++ = *c++;
    }
    return out;
}

static void check_state_text(const struct plan_subject *s, const char *signature)
{
    CLEANUP_FREE char *text = plan_state_text(s);
    CLEANUP_FREE char *volumes = string_of(text, "volMap");
    CLEANUP_FREE char *modules = string_of(text, "modules");
    CLEANUP_FREE char *id = string_of(text, "identifier");
    expect_equal(volumes, signature, "volMap");
    expect_equal(modules, s->modules->names, "modules");
    expect_equal(id, identifier, "identifier");
    size_t length = strlen(text);
    if (length < 2 || strcmp(text + length - 2, "}\n") != 0 || strchr(text, '\n') != text + length - 1)
        bug("no line of JSON: %s", text);
}

static void check_file(const char *text)
{
    char directory[] = "/tmp/fuzz-state-XXXXXX";
    size_t length = strlen(text);
    if (mkdtemp(directory) == NULL)
        bug("no directory");
    CLEANUP_CLOSE int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_CLOSE int file = openat(fd, "plan", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0 || write(file, text, length) != (ssize_t)length)
        bug("no file");
    CLEANUP_FREE char *longer = text_format("%s.", text);
    CLEANUP_FREE char *other = text_copy(text);
    other[length - 1] ^= 1;
    bool same = state_file_equals(fd, "plan", text);
    if (state_file_equals(fd, "plan", longer) || state_file_equals(fd, "plan", other) ||
        state_file_equals(fd, "none", text))
        bug("a file holds what it does not hold");
    (void)unlinkat(fd, "plan", 0);
    (void)rmdir(directory);
    if (!same)
        bug("a file does not hold what was written");
}

/* Whoever names no image means what the plan was made from. */
static void check_prepared(const char *text, const char *modules, const char *signature)
{
    struct strings plans = {0};
    struct prepared found;
    struct error e = error_untouched();
    strings_add(&plans, text);
    strings_add(&plans, text);
    if (prepared_choose(&plans, &found, &e) < 0)
        bug("two equal plans are no answer: %s", e.text);
    CLEANUP_FREE char *image = text_format("id:%s", identifier);
    expect_equal(found.image, image, "the prepared image");
    expect_equal(found.modules, *modules != '\0' ? modules : "none", "the prepared modules");
    expect_equal(found.volumes, signature, "the prepared volumes");
    prepared_free(&found);
    strings_free(&plans);
}

static void check_plan(const struct plan_subject *s, const char *signature)
{
    struct plan plan;
    plan_make(s, &plan);
    CLEANUP_FREE char *text = plan_describe(&plan, s);
    CLEANUP_FREE char *line = text_format("\nvolumes %s\nscratch ", signature);
    if (strstr(text, line) == NULL)
        bug("the plan does not say which volumes: %s", text);
    size_t expected = 4, lines = 0;
    for (size_t i = 0; i < plan.count; i++) {
        expected += !plan.steps[i].of_job;
        if (plan.steps[i].source != NULL && plan.steps[i].kind == PLAN_VOLUME)
            expect_clean_path(plan.steps[i].source, "a source");
        expect_clean_path(plan.steps[i].target, "a target");
        if ((plan.steps[i].attributes & MOUNT_NO_SUID) == 0)
            bug("a step without nosuid");
        if ((plan.steps[i].attributes & MOUNT_NO_DEVICES) == 0 && strcmp(plan.steps[i].target, "/dev") != 0)
            bug("a step without nodev at %s", plan.steps[i].target);
    }
    for (const char *c = text; *c != '\0'; c++)
        lines += *c == '\n';
    if (lines != expected)
        bug("%zu steps in %zu lines", expected, lines);
    plan_free(&plan);
    struct plan_subject other = *s; /* of another job */
    other.hosts = "node1\nnode2\n";
    plan_make(&other, &plan);
    CLEANUP_FREE char *again = plan_describe(&plan, &other);
    expect_equal(again, text, "the plan for another job");
    plan_free(&plan);
    check_prepared(text, s->modules->names, signature);
    check_file(text);
}

static void check_subject(const struct config *config, const struct modules *modules, const struct volumes *volumes)
{
    struct error e = error_untouched();
    struct image image = {.id = (char *)(uintptr_t)identifier, .file_fd = 0, .meta_fd = 0};
    struct account account = {.name = (char *)(uintptr_t) "user", .uid = 1000, .gid = 100};
    struct caller caller = {.uid = 1000, .gid = 100};
    const struct plan_subject subject = {.config = config, .image = &image, .account = &account, .caller = &caller,
                                         .modules = modules, .volumes = volumes};
    CLEANUP_FREE char *signature = volumes_signature(volumes);
    if (plan_check(config, modules, volumes, &e) < 0)
        expect_message(&e);
    check_state_text(&subject, signature);
    check_plan(&subject, signature);
}

static void check_holder(const char *holder)
{
    static const char characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@-";
    struct error e = error_untouched();
    size_t length = strlen(holder);
    bool good = length > 0 && length <= 128 && strspn(holder, characters) == length && *holder != '.' && *holder != '-';
    if ((state_check_holder(holder, &e) == 0) != good)
        bug("holder '%s' is taken, or not", holder);
    if (!good)
        expect_message(&e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct strings texts = texts_of(data, size, 4), maps = {0};
    struct config config;
    struct modules modules;
    struct volumes volumes = {0};
    struct error e = error_untouched();
    CLEANUP_FREE char *text = text_format("%s%s", base, texts.items[0]);
    if (texts.count == 4)
        check_holder(texts.items[3]);
    if (texts.count > 2)
        strings_add(&maps, texts.items[2]);
    if (config_parse(text, strlen(text), "udiRoot.conf", &config, &e) == 0) {
        CLEANUP_FREE char *place = state_path(&config);
        if (strncmp(place, STATEDIR "/", sizeof STATEDIR) != 0 || strchr(place + sizeof STATEDIR, '/') != NULL)
            bug("the state of %s is in %s", config.udi_mount, place);
        if (modules_choose(&config, texts.count > 1 ? texts.items[1] : NULL, &modules, &e) == 0) {
            if (volumes_of_user(&maps, &volumes, &e) == 0)
                check_subject(&config, &modules, &volumes);
            modules_release(&modules);
        }
        volumes_free(&volumes);
        config_free(&config);
    }
    strings_free(&maps);
    strings_free(&texts);
    return 0;
}
