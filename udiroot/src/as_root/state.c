/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/state.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "as_root/kernel.h"
#include "base/file.h"
#include "base/text.h"

enum { NSFS = 0x6e736673, PLAN_TEXT_LIMIT = 1 << 20 };

const char state_default_holder[] = "node";

int state_check_holder(const char *holder, struct error *e)
{
    size_t length = strlen(holder);
    bool good = length > 0 && length <= HOLDER_LENGTH && holder[0] != '.' && holder[0] != '-';
    for (const char *c = holder; *c != '\0' && good; c++)
        good = isalnum((unsigned char)*c) || strchr("_.@-", *c) != NULL;
    return good ? 0
                : error_set(e, 0,
                            "bad holder name '%.200s': 1 to %d characters of [A-Za-z0-9_.@-], the first neither "
                            "'.' nor '-'",
                            holder, HOLDER_LENGTH);
}

char *state_path(const struct config *config)
{
    char *path = text_format("%s/%s", STATEDIR, config->udi_mount + 1);
    for (char *c = path + sizeof STATEDIR; *c != '\0'; c++)
        if (*c == '/')
            *c = '%';
    return path;
}

int state_open_trusted(const char *path)
{
    CLEANUP_CLOSE int handle = kernel_open_no_symlinks(path);
    if (handle < 0)
        return -1;
    int fd = openat(handle, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || (fstat(fd, &st) == 0 && st.st_uid == 0 && (st.st_mode & 077) == 0))
        return fd;
    (void)close(fd);
    errno = EPERM;
    return -1;
}

int state_open_environment(int directory, const char *name)
{
    return openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

bool state_is_absent(void)
{
    return access(STATEDIR, F_OK) < 0 && errno == ENOENT;
}

bool state_has(int directory, const char *name)
{
    struct stat st;
    return fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static char *read_text(int directory, const char *name, size_t *length)
{
    CLEANUP_CLOSE int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? NULL : file_read(fd, 0, PLAN_TEXT_LIMIT, length);
}

bool state_file_equals(int directory, const char *name, const char *text)
{
    size_t length;
    CLEANUP_FREE char *content = read_text(directory, name, &length);
    return content != NULL && length == strlen(text) && memcmp(content, text, length) == 0;
}

int state_open_namespace(int environment)
{
    int fd = openat(environment, "ns", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct statfs fs;
    if (fd < 0 || (fstatfs(fd, &fs) == 0 && fs.f_type == NSFS))
        return fd;
    (void)close(fd);
    errno = ENOENT; /* not, or no longer, pinned */
    return -1;
}

static bool is_held_by(int environment, const char *holder)
{
    CLEANUP_CLOSE int holders = state_open_environment(environment, "holders");
    return holders >= 0 && state_has(holders, holder);
}

int state_list(int directory, uid_t uid, struct strings *out, struct error *e)
{
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = copy < 0 ? NULL : fdopendir(copy);
    if (listing == NULL)
        return error_set(e, errno, "cannot list the prepared environments below " STATEDIR);
    CLEANUP_FREE char *prefix = text_format("%u.", (unsigned)uid);
    struct dirent *entry;
    while ((entry = readdir(listing)) != NULL)
        if (entry->d_name[0] != '.' && (uid == (uid_t)-1 || strncmp(entry->d_name, prefix, strlen(prefix)) == 0))
            strings_add(out, entry->d_name);
    (void)closedir(listing);
    return 0;
}

/* Opens the directory of all environments and lists those of `uid`; -1 when there is none that can be trusted. */
static int open_environments(const struct config *config, uid_t uid, struct strings *names)
{
    CLEANUP_FREE char *path = state_path(config);
    struct error ignored;
    int directory = state_open_trusted(path);
    if (directory < 0 || state_list(directory, uid, names, &ignored) == 0)
        return directory;
    (void)close(directory);
    return -1;
}

void state_plans(const struct config *config, uid_t uid, const char *holder, struct strings *out)
{
    struct strings names = {0};
    CLEANUP_CLOSE int directory = open_environments(config, uid, &names);
    for (size_t i = 0; i < names.count; i++) {
        CLEANUP_CLOSE int environment = state_open_environment(directory, names.items[i]);
        CLEANUP_CLOSE int pinned = environment < 0 ? -1 : state_open_namespace(environment);
        size_t length;
        CLEANUP_FREE char *plan = pinned < 0 ? NULL : read_text(environment, "plan", &length);
        if (plan != NULL && (holder == NULL || is_held_by(environment, holder)))
            strings_add(out, plan);
    }
    strings_free(&names);
}

int state_find(const struct config *config, uid_t uid, const char *plan_text, const char *holder)
{
    struct strings names = {0};
    CLEANUP_CLOSE int directory = open_environments(config, uid, &names);
    int found = -1;
    for (size_t i = 0; i < names.count; i++) {
        CLEANUP_CLOSE int environment = state_open_environment(directory, names.items[i]);
        if (environment < 0 || !state_file_equals(environment, "plan", plan_text))
            continue;
        bool mine = holder != NULL && is_held_by(environment, holder);
        if (found >= 0 && !mine)
            continue;
        int fd = state_open_namespace(environment);
        if (fd < 0)
            continue;
        if (found >= 0)
            (void)close(found);
        found = fd;
        if (mine || holder == NULL)
            break;
    }
    strings_free(&names);
    return found;
}
