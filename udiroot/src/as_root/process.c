/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "as_root/kernel.h"
#include "base/text.h"

/* Less than this, and root's work could stop half way. */
static const struct {
    int resource;
    rlim_t needed;
} limits[PROCESS_LIMITS] = {
    {RLIMIT_FSIZE, RLIM_INFINITY}, {RLIMIT_AS, RLIM_INFINITY}, {RLIMIT_DATA, RLIM_INFINITY},
    {RLIMIT_NOFILE, 256},          {RLIMIT_STACK, 1U << 20},
};
static const int signals[PROCESS_SIGNALS] = {SIGCHLD, SIGPIPE, SIGXFSZ};
static const int held[] = {SIGTERM, SIGINT, SIGHUP};
enum { HELD = sizeof held / sizeof held[0] };
static bool holding; /* a daemon that has us as a plug-in holds signals for reasons of its own */

static int fill_standard_descriptors(struct error *e)
{
    struct pollfd three[] = {{.fd = 0}, {.fd = 1}, {.fd = 2}};
    if (poll(three, 3, 0) < 0)
        return error_set(e, errno, "cannot examine the standard descriptors");
    for (int fd = 0; fd <= 2; fd++) {
        if ((three[fd].revents & POLLNVAL) == 0)
            continue;
        if (open("/dev/null", O_RDWR) != fd) /* takes the lowest free number, which is fd */
            return error_set(e, errno, "cannot open /dev/null in place of closed descriptor %d", fd);
    }
    return 0;
}

static int process_manager_fd(const char *text)
{
    char *end;
    if (text == NULL || *text == '\0')
        return -1;
    errno = 0;
    long fd = strtol(text, &end, 10);
    struct stat st;
    if (errno != 0 || *end != '\0' || fd <= 2 || fd > INT_MAX || fstat((int)fd, &st) < 0)
        return -1;
    return S_ISSOCK(st.st_mode) || S_ISFIFO(st.st_mode) ? (int)fd : -1;
}

static int close_all_but(int kept)
{
    if (kept < 0)
        return kernel_close_range(3, UINT_MAX);
    if (kernel_close_range(3, (unsigned)kept - 1) < 0)
        return -1;
    return kernel_close_range((unsigned)kept + 1, UINT_MAX);
}

static int raise_limits(struct process *out, struct error *e)
{
    for (int i = 0; i < PROCESS_LIMITS; i++) {
        struct rlimit *old = &out->limits[i];
        if (getrlimit(limits[i].resource, old) < 0)
            return error_set(e, errno, "cannot read resource limit %d", limits[i].resource);
        if (old->rlim_cur >= limits[i].needed)
            continue;
        struct rlimit sane = {.rlim_cur = limits[i].needed, .rlim_max = old->rlim_max};
        if (sane.rlim_max < sane.rlim_cur)
            sane.rlim_max = sane.rlim_cur;
        if (setrlimit(limits[i].resource, &sane) == 0)
            continue;
        /* Inside a machine container root may lack CAP_SYS_RESOURCE: as far as the hard limit goes. What is then too
         * little ends in an error of the operation it stops. */
        sane = (struct rlimit){.rlim_cur = old->rlim_max, .rlim_max = old->rlim_max};
        if (errno != EPERM || setrlimit(limits[i].resource, &sane) < 0)
            return error_set(e, errno, "cannot raise resource limit %d", limits[i].resource);
    }
    return 0;
}

int process_begin(int argc, const char *pmi_fd, struct process *out, struct error *e)
{
    *out = (struct process){.kept_fd = -1};
    if (prctl(PR_SET_DUMPABLE, 0) < 0)
        return error_set(e, errno, "cannot forbid tracing of this process");
    if (argc < 1)
        return error_set(e, 0, "started without a program name (argc is 0)");
    if (fill_standard_descriptors(e) < 0)
        return -1;
    out->kept_fd = process_manager_fd(pmi_fd);
    if (close_all_but(out->kept_fd) < 0)
        return error_set(e, errno, "cannot close inherited descriptors");
    out->umask = umask(022);
    if (raise_limits(out, e) < 0)
        return -1;
    for (int i = 0; i < PROCESS_SIGNALS; i++) {
        struct sigaction action = {.sa_handler = signals[i] == SIGCHLD ? SIG_DFL : SIG_IGN};
        (void)sigaction(signals[i], &action, &out->actions[i]);
    }
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, &out->mask);
    return 0;
}

void process_hold_signals(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    for (size_t i = 0; i < HELD; i++) {
        struct sigaction action; /* a blocked signal waits even if it is ignored */
        if (sigaction(held[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            (void)sigaddset(&set, held[i]);
    }
    holding = sigprocmask(SIG_BLOCK, &set, NULL) == 0;
}

int process_check_signals(struct error *e)
{
    sigset_t waiting;
    for (size_t i = 0; i < HELD && holding && sigpending(&waiting) == 0; i++)
        if (sigismember(&waiting, held[i]) == 1)
            return error_set(e, 0, "stopped by signal %d; what was begun is undone", held[i]);
    return 0;
}

int process_restore(const struct process *process, struct error *e)
{
    if (close_all_but(process->kept_fd) < 0)
        return error_set(e, errno, "cannot close descriptors before the command");
    for (int i = 0; i < PROCESS_SIGNALS; i++)
        (void)sigaction(signals[i], &process->actions[i], NULL);
    (void)sigprocmask(SIG_SETMASK, &process->mask, NULL);
    for (int i = 0; i < PROCESS_LIMITS; i++)
        if (process->limits[i].rlim_cur < limits[i].needed && setrlimit(limits[i].resource, &process->limits[i]) < 0)
            return error_set(e, errno, "cannot restore resource limit %d", limits[i].resource);
    (void)umask(process->umask);
    return 0;
}

int process_change_directory(const char *path)
{
    if (strcmp(path, "/") == 0)
        return 0;
    CLEANUP_CLOSE int directory = kernel_open_in_root(AT_FDCWD, path, KERNEL_LINKS);
    return directory < 0 ? -1 : fchdir(directory);
}
