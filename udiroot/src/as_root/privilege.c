/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/privilege.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"
#include "base/text.h"

/* Neither uid 0 nor an ambient set nor a kept one is a source of capabilities, for good: capabilities(7). A caller
 * whose parent had changed them starts from the same. */
static const unsigned long secure_bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP_LOCKED |
                                         SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                                         SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

/* The last two in bytes: at most 65536 groups of eleven. */
enum { CAPABILITY_NUMBERS = 64, STATUS_USUAL = 4000, STATUS_LIMIT = 1 << 21 };

void caller_add_group(struct caller *c, gid_t gid)
{
    if (gid == 0) /* never handed to a user's process: spec 9.9 */
        return;
    c->groups = text_grow(c->groups, c->group_count + 1, sizeof *c->groups);
    c->groups[c->group_count++] = gid;
}

int caller_of_process(struct caller *out, struct error *e)
{
    *out = (struct caller){.uid = getuid(), .gid = getgid()};
    if (out->uid == 0 || out->gid == 0)
        return error_set(e, 0, "root, or a user whose group is 0, cannot use shifter; run it as an ordinary user");
    if (geteuid() != 0)
        return error_set(e, 0,
                         "shifter got no rights of root: it must be setuid root (mode 4755) on a file system without "
                         "nosuid, and be started where programs can gain rights: neither in a container or user "
                         "namespace nor after no_new_privs");
    int count = getgroups(0, NULL);
    if (count < 0)
        return error_set(e, errno, "cannot count the caller's groups");
    CLEANUP_FREE gid_t *groups = text_alloc(((size_t)count + 1) * sizeof *groups);
    count = getgroups(count, groups);
    if (count < 0)
        return error_set(e, errno, "cannot read the caller's groups");
    for (int i = 0; i < count; i++)
        caller_add_group(out, groups[i]);
    return 0;
}

static void must_change(int result)
{
    if (result == 0)
        return;
    (void)dprintf(STDERR_FILENO, "shifter: cannot switch user ids: %s\n", strerror(errno));
    _exit(EXIT_SHIFTER);
}

void privilege_as_user(const struct caller *caller)
{
    must_change(setgroups(caller->group_count, caller->groups));
    must_change(setresgid((gid_t)-1, caller->gid, 0));
    must_change(setresuid((uid_t)-1, caller->uid, 0));
    must_change(geteuid() == caller->uid ? 0 : -1);
    must_change(prctl(PR_SET_DUMPABLE, 0)); /* a change of ids resets it to fs.suid_dumpable: prctl(2) */
}

void privilege_as_root(void)
{
    must_change(setresuid((uid_t)-1, 0, 0));
    must_change(setresgid((gid_t)-1, 0, 0)); /* what root makes is root's in its group as well */
    must_change(setgroups(0, NULL));         /* nor does root, or a program it starts, act with groups of the user */
    must_change(geteuid() == 0 ? 0 : -1);
    must_change(prctl(PR_SET_DUMPABLE, 0));
}

static int drop_capabilities(struct error *e)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capset, &header, none) < 0)
        return error_set(e, errno, "cannot clear the capability sets");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set(e, errno, "cannot set no_new_privs");
    return 0;
}

/* The status file of this process must read `name:` followed by `value`. */
static int expect_status(const char *status, const char *name, const char *value, struct error *e)
{
    CLEANUP_FREE char *label = text_format("\n%s:\t", name);
    const char *found = strstr(status, label);
    size_t length = strlen(value);
    if (found != NULL && strncmp(found + strlen(label), value, length) == 0 && found[strlen(label) + length] == '\n')
        return 0;
    return error_set(e, 0,
                     "privileges were not dropped: %s of this process is not %s; report this to the administrator",
                     name, value);
}

static int read_back(const struct caller *caller, int proc, struct error *e)
{
    size_t length;
    CLEANUP_CLOSE int fd = openat(proc, "self/status", O_RDONLY | O_CLOEXEC);
    CLEANUP_FREE char *text = fd < 0 ? NULL : file_read(fd, STATUS_USUAL, STATUS_LIMIT, &length);
    if (text == NULL)
        return error_set(e, errno, "cannot read /proc/self/status to verify that privileges were dropped");
    static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        if (expect_status(text, sets[i], "0000000000000000", e) < 0)
            return -1;
    CLEANUP_FREE char *uids = text_format("%1$u\t%1$u\t%1$u\t%1$u", (unsigned)caller->uid);
    CLEANUP_FREE char *gids = text_format("%1$u\t%1$u\t%1$u\t%1$u", (unsigned)caller->gid);
    if (expect_status(text, "NoNewPrivs", "1", e) < 0 || expect_status(text, "Uid", uids, e) < 0 ||
        expect_status(text, "Gid", gids, e) < 0)
        return -1;
    if (setresuid((uid_t)-1, 0, (uid_t)-1) == 0 || setresgid((gid_t)-1, 0, (gid_t)-1) == 0)
        return error_set(e, 0, "privileges could be regained after the drop; report this to the administrator");
    if (prctl(PR_GET_SECUREBITS) != (int)secure_bits)
        return error_set(e, 0, "the secure bits were not set; report this to the administrator");
    if (getgroups(0, NULL) == (int)caller->group_count)
        return 0;
    return error_set(e, 0, "privileges were not dropped: the group list was not set; report this to the administrator");
}

int privilege_drop(const struct caller *caller, int proc, struct error *e)
{
    if (prctl(PR_SET_SECUREBITS, secure_bits) < 0)
        return error_set(e, errno, "cannot set the secure bits, which a parent has locked in another way");
    for (int number = 0; number < CAPABILITY_NUMBERS; number++) {
        if (prctl(PR_CAPBSET_DROP, number, 0, 0, 0) == 0)
            continue;
        if (errno == EINVAL && number > 0) /* past the last capability this kernel knows */
            break;
        return error_set(e, errno, "cannot drop capability %d from the bounding set", number);
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return error_set(e, errno, "cannot clear the ambient capabilities");
    if (setgroups(caller->group_count, caller->groups) < 0)
        return error_set(e, errno, "cannot set the group list");
    if (setresgid(caller->gid, caller->gid, caller->gid) < 0)
        return error_set(e, errno, "cannot become group %u", (unsigned)caller->gid);
    if (setresuid(caller->uid, caller->uid, caller->uid) < 0)
        return error_set(e, errno, "cannot become user %u", (unsigned)caller->uid);
    if (prctl(PR_SET_DUMPABLE, 0) < 0)
        return error_set(e, errno, "cannot forbid tracing of this process");
    if (drop_capabilities(e) < 0)
        return -1;
    return read_back(caller, proc, e);
}
