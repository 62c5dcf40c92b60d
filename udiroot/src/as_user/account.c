/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/account.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

static void copy_account(const struct passwd *from, struct account *out)
{
    *out = (struct account){.name = text_copy(from->pw_name),
                            .gecos = text_copy(from->pw_gecos != NULL ? from->pw_gecos : ""),
                            .home = text_copy(from->pw_dir != NULL ? from->pw_dir : "/"),
                            .shell = text_copy(from->pw_shell != NULL ? from->pw_shell : "/bin/sh"),
                            .uid = from->pw_uid,
                            .gid = from->pw_gid};
}

/* The first entry of <etcPath>/passwd for `name`, or for `uid` when there is no name. Returns 1 when there is none. */
static int find_in_file(const struct config *config, const char *name, uid_t uid, struct account *out, struct error *e)
{
    CLEANUP_FREE char *path = text_format("%s/passwd", config->etc_path);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return error_set(e, errno, "cannot read the account file %s (etcPath of udiRoot.conf)", path);
    int result = 1;
    struct passwd *entry;
    while (result == 1 && (entry = fgetpwent(file)) != NULL)
        if (name != NULL ? strcmp(entry->pw_name, name) == 0 : entry->pw_uid == uid) {
            copy_account(entry, out);
            result = 0;
        }
    (void)fclose(file);
    return result;
}

static int find(const struct config *config, const char *name, uid_t uid, struct account *out, struct error *e)
{
    if (!config->allow_libc_pwd_calls && !config->populate_etc_dynamically)
        return find_in_file(config, name, uid, out, e);
    errno = 0;
    const struct passwd *entry = name != NULL ? getpwnam(name) : getpwuid(uid);
    if (entry == NULL)
        return 1;
    copy_account(entry, out);
    return 0;
}

int account_of_uid(const struct config *config, uid_t uid, struct account *out, struct error *e)
{
    int result = find(config, NULL, uid, out, e);
    if (result == 1)
        return error_set(e, 0, "uid %u has no account in %s%s; ask the administrator to add it", (unsigned)uid,
                         config->allow_libc_pwd_calls || config->populate_etc_dynamically ? "this system"
                                                                                          : config->etc_path,
                         config->allow_libc_pwd_calls || config->populate_etc_dynamically ? "" : "/passwd");
    return result;
}

int account_of_name(const struct config *config, const char *name, struct account *out, struct error *e)
{
    int result = find(config, name, 0, out, e);
    return result == 1 ? error_set(e, 0, "there is no account named %s", name) : result;
}

void account_free(struct account *account)
{
    free(account->name);
    free(account->gecos);
    free(account->home);
    free(account->shell);
    *account = (struct account){0};
}
