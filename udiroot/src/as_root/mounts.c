/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "as_user/plan.h"
#include "base/file.h"
#include "base/text.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

static const struct {
    const char *word;
    unsigned attribute;
    unsigned long flag;
} option_words[] = {
    {"ro", MOUNT_READ_ONLY, MS_RDONLY},   {"nosuid", MOUNT_NO_SUID, MS_NOSUID}, {"nodev", MOUNT_NO_DEVICES, MS_NODEV},
    {"noexec", MOUNT_NO_EXEC, MS_NOEXEC}, {"noatime", 0, MS_NOATIME},           {"nodiratime", 0, MS_NODIRATIME},
    {"relatime", 0, MS_RELATIME},         {"nosymfollow", 0, MS_NOSYMFOLLOW},
};
enum { OPTION_WORDS = sizeof option_words / sizeof option_words[0] };

static void parse_options(char *options, struct mount_entry *entry)
{
    char *rest = NULL;
    for (char *word = strtok_r(options, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest))
        for (size_t i = 0; i < OPTION_WORDS; i++)
            if (strcmp(word, option_words[i].word) == 0) {
                entry->attributes |= option_words[i].attribute;
                entry->flags |= option_words[i].flag;
            }
}

static char *unescape(const char *text)
{
    char *out = text_copy(text), *to = out;
    for (const char *from = out; *from != '\0'; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' && from[3] >= '0' &&
            from[3] <= '7') {
            *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
    return out;
}

/* 36 35 98:0 /root /point rw,nosuid shared:1 - type source super,options: the fields up to the dash vary in number. */
static int parse_line(char *line, struct mount_entry *entry)
{
    char *fields[6], *rest = NULL, *end;
    if (strstr(line, " - ") == NULL)
        return -1;
    for (size_t i = 0; i < 6; i++)
        if ((fields[i] = strtok_r(i == 0 ? line : NULL, " ", &rest)) == NULL)
            return -1;
    entry->id = strtoul(fields[0], &end, 10);
    entry->parent = strtoul(fields[1], NULL, 10);
    if (*end != '\0' || fields[4][0] != '/')
        return -1;
    parse_options(fields[5], entry);
    entry->point = unescape(fields[4]);
    return 0;
}

int mount_table_parse(const char *text, size_t length, struct mount_table *out, struct error *e)
{
    *out = (struct mount_table){0};
    CLEANUP_FREE char *copy = text_copy_n(text, length);
    char *rest = NULL;
    size_t capacity = 0;
    for (char *line = strtok_r(copy, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        if (out->count == capacity) {
            capacity = capacity == 0 ? 64 : capacity * 2;
            out->items = text_grow(out->items, capacity, sizeof *out->items);
        }
        out->items[out->count] = (struct mount_entry){0};
        if (parse_line(line, &out->items[out->count]) < 0) {
            mount_table_free(out);
            return error_set(e, 0, "cannot understand a line of the kernel's mount table");
        }
        out->count++;
    }
    return 0;
}

static char *read_all(int directory, const char *name, size_t *length)
{
    CLEANUP_CLOSE int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? NULL : file_read(fd, 0, SIZE_MAX / 4, length);
}

int mount_table_read(int proc, struct mount_table *out, struct error *e)
{
    size_t length;
    CLEANUP_FREE char *text = read_all(proc, "self/mountinfo", &length);
    if (text == NULL)
        return error_set(e, errno, "cannot read the mount table /proc/self/mountinfo");
    return mount_table_parse(text, length, out, e);
}

void mount_table_free(struct mount_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->items[i].point);
    free(table->items);
    *table = (struct mount_table){0};
}

unsigned long mount_id(int proc, int fd)
{
    char name[40];
    (void)snprintf(name, sizeof name, "self/fdinfo/%d", fd);
    size_t length;
    CLEANUP_FREE char *text = read_all(proc, name, &length);
    if (text == NULL)
        return 0;
    const char *found = strstr(text, "mnt_id:");
    return found == NULL ? 0 : strtoul(found + 7, NULL, 10);
}

char *mount_name(int proc, int fd)
{
    char link[40], out[PATH_MAX];
    (void)snprintf(link, sizeof link, "self/fd/%d", fd);
    ssize_t length = readlinkat(proc, link, out, PATH_MAX);
    errno = length == PATH_MAX ? ENAMETOOLONG : errno;
    return length < 0 || length == PATH_MAX ? NULL : text_copy_n(out, (size_t)length);
}

static unsigned long remount_flags(unsigned attributes)
{
    unsigned long flags = 0;
    for (size_t i = 0; i < OPTION_WORDS; i++)
        if ((attributes & option_words[i].attribute) != 0)
            flags |= option_words[i].flag;
    return flags;
}

/* Adds attributes to one mount of the table. Its path may lead through directories of users, so it is opened without
 * following a link and must turn out to be that very mount. */
static int add_attributes(int proc, const struct mount_entry *entry, unsigned attributes, struct error *e)
{
    CLEANUP_CLOSE int fd = kernel_open_no_symlinks(entry->point);
    if (fd < 0)
        return error_set(e, errno, "cannot open the mount at %s to restrict it", entry->point);
    if (mount_id(proc, fd) != entry->id)
        return 0; /* covered by another mount: nobody can reach it */
    unsigned long flags = MS_REMOUNT | MS_BIND | entry->flags | remount_flags(attributes);
    if (kernel_change_mount(fd, false, attributes, PROPAGATE_UNCHANGED) == 0 ||
        (errno == ENOSYS && mount(NULL, kernel_fd_path(fd).text, NULL, flags, NULL) == 0))
        return 0;
    return error_set(e, errno, "cannot restrict the mount at %s", entry->point);
}

static int add_attributes_below(int proc, const char *base, unsigned attributes, struct error *e)
{
    struct mount_table table;
    if (mount_table_read(proc, &table, e) < 0)
        return -1;
    int result = 0;
    for (size_t i = 0; i < table.count && result == 0; i++)
        if (path_is_below(table.items[i].point, base) && (table.items[i].attributes & attributes) != attributes)
            result = add_attributes(proc, &table.items[i], attributes, e);
    mount_table_free(&table);
    return result;
}

/* mount(2) and nothing newer. A remount states all flags anew, so those of the source are read and repeated; all of
 * it at a place of ours, from which the finished mount is moved. */
static int bind_on_old_kernel(int proc, const struct bind *b, unsigned long *id, struct error *e)
{
    unsigned long recursive = b->recursive ? MS_REC : 0;
    struct stat st;
    const char *place = fstat(b->source, &st) == 0 && S_ISDIR(st.st_mode) ? "directory" : "file";
    int made = place[0] == 'd' ? mkdirat(b->stage, place, 0700) : mknodat(b->stage, place, S_IFREG | 0600, 0);
    if (made < 0 && errno != EEXIST)
        return error_set(e, errno, "cannot make a first place for the mount at %s", b->name);
    CLEANUP_CLOSE int bare = openat(b->stage, place, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (bare < 0 ||
        mount(kernel_fd_path(b->source).text, kernel_fd_path(bare).text, NULL, MS_BIND | recursive, NULL) < 0)
        return error_set(e, errno, "cannot copy the mount that is to appear at %s in the container", b->name);
    CLEANUP_CLOSE int mounted = openat(b->stage, place, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    unsigned long propagation = b->propagation == PROPAGATE_SLAVE ? MS_SLAVE : MS_PRIVATE;
    CLEANUP_FREE char *point = mount_name(proc, mounted);
    if (point == NULL || mount(NULL, kernel_fd_path(mounted).text, NULL, propagation | recursive, NULL) < 0)
        return error_set(e, errno, "cannot set the propagation of %s in the container", b->name);
    if (add_attributes_below(proc, point, b->attributes, e) < 0)
        return -1;
    if (id != NULL)
        *id = mount_id(proc, mounted);
    return mount(kernel_fd_path(mounted).text, kernel_fd_path(b->target).text, NULL, MS_MOVE, NULL) == 0
               ? 0
               : error_set(e, errno, "cannot mount at %s in the container", b->name);
}

int mount_bind(int proc, const struct bind *b, unsigned long *id, struct error *e)
{
    CLEANUP_CLOSE int tree = kernel_clone_mount(b->source, b->recursive);
    if (tree < 0 && errno == ENOSYS)
        return bind_on_old_kernel(proc, b, id, e);
    if (tree < 0)
        return error_set(e, errno, "cannot copy the mount that is to appear at %s in the container", b->name);
    if (kernel_change_mount(tree, b->recursive, b->attributes, b->propagation) < 0) {
        if (errno == ENOSYS) /* Linux 5.2 to 5.11 */
            return bind_on_old_kernel(proc, b, id, e);
        return error_set(e, errno, "cannot restrict the mount that is to appear at %s in the container", b->name);
    }
    if (id != NULL)
        *id = mount_id(proc, tree);
    return kernel_attach_mount(tree, b->target) == 0
               ? 0
               : error_set(e, errno, "cannot mount at %s in the container", b->name);
}

/* Nobody can reach a mount that another one covers; the kernel does not let us change it either. The order of the table
 * does not tell which one is on top: what arrives by propagation is put beneath what is there. */
static bool is_covered(int proc, const struct mount_entry *entry)
{
    if (strcmp(entry->point, "/") == 0)
        return false;
    CLEANUP_CLOSE int fd = kernel_open_no_symlinks(entry->point);
    unsigned long id = fd < 0 ? 0 : mount_id(proc, fd);
    return id != 0 && id != entry->id;
}

/* Where the target of each step is. Only a link of the image can have led its mount elsewhere. */
static void find_places(int proc, const struct plan *plan, const struct mount_table *table, struct strings *out)
{
    for (const struct plan_step *step = plan->steps; step < plan->steps + plan->count; step++) {
        bool found = step->kind < PLAN_BIND;
        for (size_t i = 0; i < table->count && !found; i++)
            found = strcmp(table->items[i].point, step->target) == 0;
        CLEANUP_CLOSE int fd = found ? -1 : kernel_open_in_root(AT_FDCWD, step->target, KERNEL_LINKS);
        char *place = fd < 0 ? NULL : mount_name(proc, fd);
        strings_take(out, place != NULL ? place : text_copy(step->target));
    }
}

/* What the last step that has to do with the place asked for; of a mount that no step made, what all must have. */
static unsigned wanted_attributes(const struct plan *plan, const struct strings *places, const char *point)
{
    for (size_t i = plan->count; i-- > 0;) {
        bool with_all_below = plan->steps[i].recursive || plan->steps[i].split;
        if (with_all_below ? path_is_below(point, places->items[i]) : strcmp(point, places->items[i]) == 0)
            return plan->steps[i].attributes | MOUNT_NO_SUID;
    }
    return MOUNT_NO_SUID | MOUNT_NO_DEVICES;
}

/* How many mounts lack an attribute. With `mend`, they get it; without, the first one is an error. */
static int examine(int proc, const struct plan *plan, bool mend, struct error *e)
{
    struct mount_table table;
    struct strings places = {0};
    if (mount_table_read(proc, &table, e) < 0)
        return -1;
    find_places(proc, plan, &table, &places);
    int lacking = table.count == 0 ? error_set(e, 0, "the container has no mounts") : 0;
    for (size_t i = 0; i < table.count && lacking >= 0; i++) {
        const struct mount_entry *entry = &table.items[i];
        unsigned missing = wanted_attributes(plan, &places, entry->point) & ~entry->attributes;
        if (missing == 0 || is_covered(proc, entry))
            continue;
        if (mend)
            lacking = add_attributes(proc, entry, missing, e) < 0 ? -1 : lacking + 1;
        else
            lacking = error_set(
                e, 0, "the mount at %s in the container lacks%s%s%s%s; the container is refused", entry->point,
                missing & MOUNT_NO_SUID ? " nosuid" : "", missing & MOUNT_NO_DEVICES ? " nodev" : "",
                missing & MOUNT_NO_EXEC ? " noexec" : "", missing & MOUNT_READ_ONLY ? " ro" : "");
    }
    strings_free(&places);
    mount_table_free(&table);
    return lacking;
}

int mounts_verify(int proc, const struct plan *plan, struct error *e)
{
    int lacking = examine(proc, plan, true, e);
    return lacking > 0 ? examine(proc, plan, false, e) : lacking; /* again, to see that they have it now */
}

static int move_over(int from, int to, const char *path, struct error *e)
{
    CLEANUP_CLOSE int source = kernel_open_in_root(from, path, KERNEL_LINKS);
    CLEANUP_CLOSE int target = kernel_open_in_root(to, path, KERNEL_LINKS);
    if (source < 0 || target < 0)
        return error_set(e, errno, "cannot open the mount at %s of the container", path);
    if (kernel_attach_mount(source, target) == 0 ||
        (errno == ENOSYS && mount(kernel_fd_path(source).text, kernel_fd_path(target).text, NULL, MS_MOVE, NULL) == 0))
        return 0;
    return error_set(e, errno, "cannot move the mount at %s of the container", path);
}

int mounts_move(int proc, int from, int to, struct error *e)
{
    struct mount_table table;
    unsigned long id = mount_id(proc, from);
    size_t base = 0;
    if (id == 0 || mount_table_read(proc, &table, e) < 0)
        return error_set(e, 0, "cannot find the mounts of the container");
    for (size_t i = 0; i < table.count; i++)
        if (table.items[i].id == id)
            base = strlen(table.items[i].point);
    int result = 0;
    for (size_t i = 0; i < table.count && result == 0; i++) {
        const struct mount_entry *entry = &table.items[i];
        if (entry->parent == id && entry->point[base] == '/')
            result = move_over(from, to, entry->point + base, e);
        else if (entry->parent == id)
            result = error_set(e, 0, "something is mounted over %s, the root of the container", entry->point);
    }
    mount_table_free(&table);
    return result;
}
