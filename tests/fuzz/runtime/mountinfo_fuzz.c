/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The mount table: any text is refused or read, and a table as the kernel writes it (proc_pid_mountinfo(5), mangle() of
 * fs/seq_file.c) is read as what was mounted.
 *
 * Input: a text; and, with a NUL between them, in turn: options, mount point, optional fields, type, source, options of
 * the file system.
 */
#include <stdio.h>
#include <sys/mount.h>

#include "as_root/mounts.h"
#include "expect.h"

enum { FIELDS = 6, MOST_TEXTS = 120 };

static const struct {
    const char *name;
    unsigned attribute;
    unsigned long flag;
} options[] = {{"ro", MOUNT_READ_ONLY, MS_RDONLY},   {"nosuid", MOUNT_NO_SUID, MS_NOSUID},
               {"nodev", MOUNT_NO_DEVICES, MS_NODEV}, {"noexec", MOUNT_NO_EXEC, MS_NOEXEC},
               {"noatime", 0, MS_NOATIME},            {"nodiratime", 0, MS_NODIRATIME},
               {"relatime", 0, MS_RELATIME}};
enum { OPTIONS = sizeof options / sizeof *options };

static unsigned choice(const char *text)
{
    return (unsigned char)text[0];
}

/* Blanks, line ends and backslashes as octal numbers. */
static char *mangle(const char *text)
{
    char *out = text_alloc(4 * strlen(text) + 1), *to = out;
    for (; *text != '\0'; text++) {
        if (strchr(" \t\n\\", *text) != NULL)
            to += sprintf(to, "\\%03o", (unsigned char)*text);
        else
            *to++ = *text;
    }
    return out;
}

static char *write_line(char *const fields[FIELDS], unsigned number)
{
    char shown[80] = "";
    for (size_t i = 0; i < OPTIONS; i++)
        if ((choice(fields[0]) >> i & 1) != 0)
            (void)sprintf(shown + strlen(shown), ",%s", options[i].name);
    static const char *const optional[] = {"", " shared:1", " master:2", " shared:3 master:4 propagate_from:5",
                                           " unbindable"};
    CLEANUP_FREE char *point = mangle(fields[1]);
    CLEANUP_FREE char *type = mangle(*fields[3] != '\0' ? fields[3] : "tmpfs");
    CLEANUP_FREE char *source = mangle(fields[4]);
    CLEANUP_FREE char *super = mangle(fields[5]);
    return text_format("%u %u 0:%u / /%s %s%s - %s %s rw,%s\n", number + 20, number + 10, number, point,
                       *shown != '\0' ? shown + 1 : "rw", optional[choice(fields[2]) % 5], type, source, super);
}

static void expect_line(const struct mount_entry *entry, char *const fields[FIELDS], unsigned number)
{
    unsigned attributes = 0;
    unsigned long flags = 0;
    for (size_t i = 0; i < OPTIONS; i++)
        if ((choice(fields[0]) >> i & 1) != 0) {
            attributes |= options[i].attribute;
            flags |= options[i].flag;
        }
    CLEANUP_FREE char *point = text_format("/%s", fields[1]);
    if (entry->id != number + 20 || entry->parent != number + 10)
        bug("mount %lu on %lu", entry->id, entry->parent);
    expect_equal(entry->point, point, "a mount point");
    if (entry->attributes != attributes || entry->flags != flags)
        bug("attributes %#x, flags %#lx", entry->attributes, entry->flags);
}

static void check_written(const struct strings *texts)
{
    size_t count = texts->count / FIELDS;
    char *text = text_copy("");
    for (size_t i = 0; i < count; i++) {
        CLEANUP_FREE char *line = write_line(texts->items + i * FIELDS, (unsigned)i);
        char *longer = text_format("%s%s", text, line);
        free(text);
        text = longer;
    }
    struct mount_table table;
    struct error e = error_untouched();
    if (mount_table_parse(text, strlen(text), &table, &e) < 0)
        bug("a table is refused: %s", text);
    if (table.count != count)
        bug("%zu mounts became %zu", count, table.count);
    for (size_t i = 0; i < count; i++)
        expect_line(&table.items[i], texts->items + i * FIELDS, (unsigned)i);
    mount_table_free(&table);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mount_table table;
    struct error e = error_untouched();
    memset(&table, 0, sizeof table);
    if (mount_table_parse((const char *)data, size, &table, &e) < 0) {
        expect_message(&e);
        expect_nothing(&table, sizeof table, "a mount table");
    }
    for (size_t i = 0; i < table.count; i++)
        if (table.items[i].point[0] != '/')
            bug("a mount at '%s'", table.items[i].point);
    mount_table_free(&table);
    struct strings texts = texts_of(data, size, MOST_TEXTS);
    check_written(&texts);
    strings_free(&texts);
    return 0;
}
