/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/etcfiles.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "as_root/kernel.h"
#include "as_root/trust.h"
#include "base/file.h"
#include "base/text.h"

enum { FILE_LIMIT = 64 << 20 }; /* bytes */

static const char nsswitch[] =
    "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files dns\n"
    "services: files\nprotocols: files\nrpc: files\nethers: files\nnetmasks: files\n"
    "netgroup: files\npublickey: files\nbootparams: files\nautomount: files\naliases: files\n";
static const char host_conf[] = "order bind,hosts\nmulti on\n";

int upper_write(int directory, const char *name, const char *text, size_t length, struct error *e)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    CLEANUP_CLOSE int fd = openat(directory, name, flags, 0644);
    if (fd < 0 && errno == EEXIST && unlinkat(directory, name, 0) == 0)
        fd = openat(directory, name, flags, 0644);
    if (fd < 0)
        return error_set(e, errno, "cannot create %s in the container", name);
    while (length > 0) {
        ssize_t put = write(fd, text, length);
        if (put < 0)
            return error_set(e, errno, "cannot write %s in the container", name);
        text += put;
        length -= (size_t)put;
    }
    return 0;
}

/* The whole of a regular file. A missing one is NULL with errno ENOENT. `st`: its state. */
static char *read_file(int fd, size_t *length, struct stat *st)
{
    if (fd < 0 || fstat(fd, st) < 0)
        return NULL;
    if (S_ISREG(st->st_mode))
        return file_read(fd, st->st_size, FILE_LIMIT, length);
    errno = S_ISDIR(st->st_mode) ? EISDIR : EINVAL;
    return NULL;
}

static bool is_member(const struct caller *caller, gid_t gid)
{
    bool member = gid == caller->gid;
    for (size_t i = 0; i < caller->group_count && !member; i++)
        member = gid == caller->groups[i];
    return member;
}

/* name:password:gid:members, fields counted even when empty; a line that is not one is left out. */
static bool parse_group(char *line, char **name, gid_t *gid)
{
    char *fields[3], *next = line, *end;
    for (int i = 0; i < 3; i++)
        if ((fields[i] = strsep(&next, ":")) == NULL)
            return false;
    unsigned long number = strtoul(fields[2], &end, 10);
    *name = fields[0];
    *gid = (gid_t)number;
    return fields[0][0] != '\0' && fields[0][0] != '#' && fields[2][0] != '\0' && *end == '\0' && number == *gid;
}

char *etcfiles_filter_group(const char *text, const char *user, const struct caller *caller, unsigned maximum)
{
    CLEANUP_FREE char *copy = text_copy(text);
    size_t user_length = strlen(user), used = 0;
    /* A line grows at most by "x", the colons and the user's name. */
    size_t lines = 1;
    for (const char *c = copy; *c != '\0'; c++)
        lines += *c == '\n';
    char *out = text_alloc(strlen(text) + lines * (user_length + 8) + 1);
    unsigned named = 0;
    char *rest = copy, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        char *name;
        gid_t gid;
        if (!parse_group(line, &name, &gid))
            continue;
        bool show = gid != 0 && is_member(caller, gid) && (maximum == 0 || named < maximum);
        named += show;
        used += (size_t)sprintf(out + used, "%s:x:%u:%s\n", name, (unsigned)gid, show ? user : "");
    }
    return out;
}

/* Opens an entry of the open directory etcPath, which is root's alone. A link is followed from the root on. */
static int open_entry(int directory, const char *path, const char *name, struct error *e)
{
    CLEANUP_FREE char *full = text_format("%s/%s", path, name);
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0 || errno != ELOOP)
        return fd >= 0 ? fd : error_set(e, errno, "cannot open %s", full);
    CLEANUP_CLOSE int target = trust_open(full, 0, "root", true, "etcPath", e);
    if (target < 0)
        return -1;
    fd = open(kernel_fd_path(target).text, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd >= 0 ? fd : error_set(e, errno, "cannot open %s", full);
}

static int copy_entry(int directory, const struct config *config, const char *name, int etc,
                      const struct account *user, const struct caller *caller, struct error *e)
{
    const char *path = config->etc_path;
    size_t length;
    struct stat st;
    struct error cause;
    CLEANUP_CLOSE int fd = open_entry(directory, path, name, e);
    if (fd < 0)
        return -1;
    CLEANUP_FREE char *text = read_file(fd, &length, &st);
    if (text == NULL)
        return error_set(e, errno, "cannot copy %s/%s into the container (etcPath holds plain files only)", path, name);
    CLEANUP_FREE char *full = text_format("%s/%s", path, name);
    if (trust_check(&st, 0, "root", full, &cause) < 0)
        return error_set(e, 0, "cannot trust %s: %s", full, cause.text);
    if (strcmp(name, "group") != 0)
        return upper_write(etc, name, text, length, e);
    CLEANUP_FREE char *filtered = etcfiles_filter_group(text, user->name, caller, config->max_group_count);
    return upper_write(etc, name, filtered, strlen(filtered), e);
}

/* Everything of etcPath. What root copies into every container, only root may have written. */
static int write_static(const struct config *config, int etc, const struct account *user, const struct caller *caller,
                        struct error *e)
{
    CLEANUP_CLOSE int trusted = trust_open(config->etc_path, 0, "root", true, "etcPath", e);
    if (trusted < 0)
        return -1;
    int source = openat(trusted, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = source < 0 ? NULL : fdopendir(source);
    if (listing == NULL)
        return error_set(e, errno, "cannot read etcPath %s", config->etc_path);
    struct stat st;
    int result = 0;
    struct dirent *entry;
    while (result == 0 && (entry = readdir(listing)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = copy_entry(trusted, config, entry->d_name, etc, user, caller, e);
    (void)closedir(listing);
    static const char *const needed[] = {"passwd", "group", "nsswitch.conf"};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0] && result == 0; i++)
        if (fstatat(etc, needed[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
            result = error_set(e, errno, "etcPath %s has no file %s", config->etc_path, needed[i]);
    return result;
}

/* A field of a database line: nothing in it may start another field or line. */
static char *field(const char *text)
{
    char *out = text_copy(text);
    for (char *c = out; *c != '\0'; c++)
        if (*c == ':' || *c == '\n' || *c == '\r')
            *c = ' ';
    return out;
}

static void add_passwd_line(struct strings *lines, const struct account *a)
{
    CLEANUP_FREE char *gecos = field(a->gecos), *home = field(a->home), *shell = field(a->shell);
    strings_take(lines,
                 text_format("%s:x:%u:%u:%s:%s:%s\n", a->name, (unsigned)a->uid, (unsigned)a->gid, gecos, home, shell));
}

static void add_group_line(struct strings *lines, gid_t gid, const char *member)
{
    const struct group *group = getgrgid(gid);
    if (group == NULL || gid == 0)
        return;
    CLEANUP_FREE char *prefix = text_format("%s:x:%u:", group->gr_name, (unsigned)gid);
    for (size_t i = 0; i < lines->count; i++)
        if (strncmp(lines->items[i], prefix, strlen(prefix)) == 0)
            return;
    strings_take(lines, text_format("%s%s\n", prefix, member));
}

static int write_lines(int etc, const char *name, const struct strings *lines, struct error *e)
{
    CLEANUP_FREE char *text = strings_join(lines);
    return upper_write(etc, name, text, strlen(text), e);
}

/* Names only, from the node's own databases: the user, root and usersToImport; the groups of the running process. */
static int write_dynamic(const struct config *config, int etc, const struct account *user, const struct caller *caller,
                         struct error *e)
{
    struct strings passwd = {0}, group = {0};
    unsigned maximum = config->max_group_count, named = 0;
    int result = 0;
    add_passwd_line(&passwd, user);
    strings_add(&passwd, "root:x:0:0:root:/root:/bin/sh\n");
    add_group_line(&group, caller->gid, user->name);
    strings_add(&group, "root:x:0:\n");
    for (size_t i = 0; i < caller->group_count; i++)
        if (caller->groups[i] != caller->gid)
            add_group_line(&group, caller->groups[i], maximum == 0 || ++named < maximum ? user->name : "");
    for (size_t i = 0; i < config->users_to_import.count && result == 0; i++) {
        struct account other = {0};
        result = account_of_name(config, config->users_to_import.items[i], &other, e);
        if (result == 0 && other.uid != user->uid && other.uid != 0) {
            add_passwd_line(&passwd, &other);
            add_group_line(&group, other.gid, "");
        }
        account_free(&other);
    }
    if (result == 0 && (write_lines(etc, "passwd", &passwd, e) < 0 || write_lines(etc, "group", &group, e) < 0))
        result = -1;
    strings_free(&passwd);
    strings_free(&group);
    if (result < 0 || upper_write(etc, "nsswitch.conf", nsswitch, sizeof nsswitch - 1, e) < 0)
        return -1;
    return upper_write(etc, "host.conf", host_conf, sizeof host_conf - 1, e);
}

static int copy_from_host(const char *path, int etc, struct error *e)
{
    size_t length = 0;
    struct stat st;
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    CLEANUP_FREE char *text = read_file(fd, &length, &st);
    if (text == NULL && errno != ENOENT)
        return error_set(e, errno, "cannot read the host's %s", path);
    return upper_write(etc, strrchr(path, '/') + 1, text != NULL ? text : "", length, e);
}

int etcfiles_write(const struct config *config, int etc, const struct account *user, const struct caller *caller,
                   struct error *e)
{
    if (copy_from_host("/etc/hosts", etc, e) < 0 || copy_from_host("/etc/resolv.conf", etc, e) < 0)
        return -1;
    int result = config->populate_etc_dynamically ? write_dynamic(config, etc, user, caller, e)
                                                  : write_static(config, etc, user, caller, e);
    /* Last: no file of etcPath or of the image shows password hashes, and the mount list is the container's own. */
    if (result < 0 || upper_write(etc, "shadow", "", 0, e) < 0)
        return -1;
    int made = symlinkat("/proc/mounts", etc, "mtab");
    if (made < 0 && errno == EEXIST && unlinkat(etc, "mtab", 0) == 0) /* one of etcPath */
        made = symlinkat("/proc/mounts", etc, "mtab");
    if (made < 0)
        return error_set(e, errno, "cannot create /etc/mtab in the container");
    return 0;
}
