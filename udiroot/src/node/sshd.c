/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/sshd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "as_root/etcfiles.h"
#include "as_root/kernel.h"
#include "base/text.h"
#include "node/sshd_files.h"

static const char program[] = "/opt/udiImage/sbin/sshd", record[] = "sshd";

enum { START_SECONDS = 20, STOP_SECONDS = 10, MESSAGE = 512 };

/* Descriptors of the watcher; it has no others. */
enum { REPORT = 3, LOG, SIGNALS, WATCHER_DESCRIPTORS };

static void nap(void)
{
    const struct timespec time = {.tv_nsec = 5000000};
    (void)nanosleep(&time, NULL);
}

/* Field 22 of proc(5)'s stat tells processes of one number apart; 0 when there is none, or only what its parent has not
 * waited for. */
static unsigned long long start_time(int proc, long pid)
{
    char text[1024], state = 'Z';
    unsigned long long time = 0;
    CLEANUP_FREE char *name = text_format("%ld/stat", pid);
    CLEANUP_CLOSE int fd = openat(proc, name, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (got <= 0)
        return 0;
    text[got] = '\0';
    const char *rest = strrchr(text, ')'); /* the name before it can hold anything */
    static const char fields[] = ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu";
    if (rest == NULL || sscanf(rest, fields, &state, &time) != 2)
        return 0;
    return state == 'Z' || state == 'X' ? 0 : time;
}

/* In the container, as root, in a namespace that only sshd and its logins are in. sshd(8) lets nobody in whose shell is
 * not there, and the accounts are the site's whatever the image has. */
static int fit_shell(const struct caller *caller, struct error *e)
{
    CLEANUP_CLOSE int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    FILE *accounts = fopen("/etc/passwd", "re"); /* of our upper layer */
    const struct passwd *entry = NULL;
    while (accounts != NULL && (entry = fgetpwent(accounts)) != NULL && entry->pw_uid != caller->uid)
        continue;
    if (accounts != NULL)
        (void)fclose(accounts);
    const char *shell = entry != NULL && *entry->pw_shell != '\0' ? entry->pw_shell : "/bin/sh";
    CLEANUP_CLOSE int found = root < 0 ? -1 : kernel_open_in_root(root, shell, KERNEL_LINKS);
    struct stat st;
    if (found >= 0 && fstat(found, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0111) != 0)
        return 0;
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
        return error_set(e, errno, "cannot make a mount namespace for sshd");
    if (mount(SSHD_PASSWD, "/etc/passwd", NULL, MS_BIND, NULL) < 0 ||
        mount(NULL, "/etc/passwd", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
        return error_set(e, errno, "cannot show sshd a shell that the image has");
    return 0;
}

/* What slurmd or a shell of root's had: sshd and the logins begin as a process of the user's does. */
static void become_ordinary(void)
{
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action = {.sa_handler = SIG_DFL};
        (void)sigaction(number, &action, NULL);
    }
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    CLEANUP_CLOSE int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (oom >= 0)
        (void)!write(oom, "0", 1);
}

static _Noreturn void become_sshd(int container, int proc, int log, const struct caller *caller)
{
    struct error e;
    char search[] = "PATH=/usr/bin:/bin", openssl[] = "OPENSSL_CONF=/dev/null", config[] = SSHD_CONFIG;
    char *const environment[] = {search, openssl, NULL};
    char *const arguments[] = {(char[]){"/opt/udiImage/sbin/sshd"}, (char[]){"-D"}, (char[]){"-e"}, (char[]){"-f"},
                               config, NULL};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
        _exit(1);
    become_ordinary();
    if (setns(container, CLONE_NEWNS) < 0)
        (void)error_set(&e, errno, "cannot enter the container");
    else if (fit_shell(caller, &e) == 0 && privilege_drop(caller, proc, &e) == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a change of ids would take it back */
        (void)kernel_close_range(3, UINT_MAX);
        (void)execve(program, arguments, environment);
        (void)error_set(&e, errno, "cannot execute %s in the container (built by extra/build-udiimage?)", program);
    }
    (void)dprintf(STDERR_FILENO, "%s\n", e.text);
    _exit(1);
}

/* Everything below becomes a child of ours when its parent is gone, so children are all there is to look for. */
static void kill_descendants(void)
{
    for (int naps = 0; naps < STOP_SECONDS * 200; naps++) {
        CLEANUP_FREE char *name = text_format("/proc/self/task/%ld/children", (long)getpid());
        FILE *children = fopen(name, "re");
        long child;
        while (children != NULL && fscanf(children, "%ld", &child) == 1)
            if (child > 1)
                (void)kill((pid_t)child, SIGKILL);
        if (children != NULL)
            (void)fclose(children);
        pid_t gone;
        while ((gone = waitpid(-1, NULL, WNOHANG)) > 0)
            continue;
        if (gone < 0 && errno == ECHILD)
            return;
        nap();
    }
}

struct said { /* of sshd, until it listens */
    char text[MESSAGE + 1];
    size_t length;
    bool reported;
};

static void report(struct said *said, const char *text)
{
    if (said->reported)
        return;
    (void)!write(REPORT, text, strlen(text));
    (void)close(REPORT);
    said->reported = true;
}

/* Returns false at the end of the log. The last lines say what is wrong, so the beginning is what makes room. */
static bool read_log(struct said *said)
{
    char more[MESSAGE / 2];
    ssize_t got = read(LOG, more, sizeof more);
    if (got <= 0)
        return got < 0 && errno == EINTR;
    if (said->reported)
        return true;
    size_t length = (size_t)got, over = said->length + length > MESSAGE ? said->length + length - MESSAGE : 0;
    memmove(said->text, said->text + over, said->length - over);
    memcpy(said->text + said->length - over, more, length);
    said->text[said->length += length - over] = '\0';
    for (char *c = said->text; *c != '\0'; c++)
        if (*c == '\r' || *c == '\n')
            *c = ' ';
    if (strstr(said->text, "Server listening on ") != NULL) {
        (void)prctl(PR_SET_PDEATHSIG, 0);
        report(said, "+");
    }
    return true;
}

/* Returns when it is asked to end or nothing is left to watch. */
static void watch(void)
{
    struct said said = {.length = 0};
    struct pollfd ready[2] = {{.fd = SIGNALS, .events = POLLIN}, {.fd = LOG, .events = POLLIN}};
    for (;;) {
        struct signalfd_siginfo signal;
        if (poll(ready, 2, -1) < 0 && errno != EINTR)
            return;
        if (ready[1].revents != 0 && !read_log(&said))
            ready[1].fd = -1;
        if (ready[0].revents == 0 || read(SIGNALS, &signal, sizeof signal) != sizeof signal)
            continue;
        if (signal.ssi_signo == SIGTERM)
            return;
        pid_t gone;
        while ((gone = waitpid(-1, NULL, WNOHANG)) > 0)
            continue;
        if (gone < 0 && errno == ECHILD) {
            while (ready[1].fd >= 0 && read_log(&said))
                continue;
            CLEANUP_FREE char *last = text_format("-%s", said.length > 0 ? said.text : "it ended at once");
            report(&said, last);
            return;
        }
    }
}

/* Until it has reported, the watcher ends with setupRoot: nobody would know of it if that was killed before the
 * record. */
static bool record_watcher(int environment, int proc, pid_t parent)
{
    struct error ignored;
    CLEANUP_FREE char *text = text_format("%ld %llu\n", (long)getpid(), start_time(proc, getpid()));
    return prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == parent &&
           upper_write(environment, record, text, strlen(text), &ignored) == 0;
}

static _Noreturn void run_watcher(int environment, int reports, int container, int proc, const struct caller *caller,
                                  pid_t parent)
{
    int log[2];
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGCHLD);
    (void)sigprocmask(SIG_SETMASK, &signals, NULL);
    int events = signalfd(-1, &signals, SFD_CLOEXEC), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (!record_watcher(environment, proc, parent) || setsid() < 0 || chdir("/") < 0 || events < 0 || null < 0 ||
        pipe2(log, O_CLOEXEC) < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
        _exit(1);
    (void)prctl(PR_SET_NAME, "shifter-sshd");
    pid_t child = fork();
    if (child == 0)
        become_sshd(container, proc, log[1], caller);
    /* Above all others, so that none is overwritten before its turn. setupRoot's lock is among what is closed. */
    int from[] = {reports, log[0], events};
    for (int i = 0; i < 3; i++)
        from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 256);
    for (int i = 0; i < 3; i++)
        if (child < 0 || dup3(from[i], REPORT + i, O_CLOEXEC) < 0)
            _exit(1);
    for (int fd = 0; fd <= 2; fd++)
        (void)dup2(null, fd);
    (void)kernel_close_range(WATCHER_DESCRIPTORS, UINT_MAX);
    watch();
    kill_descendants();
    _exit(0);
}

/* What the watcher reports: "+", or "-" and why not. */
static int await_report(int reports, struct error *e)
{
    char text[MESSAGE + 64] = "";
    struct pollfd ready = {.fd = reports, .events = POLLIN};
    int result;
    while ((result = poll(&ready, 1, START_SECONDS * 1000)) < 0 && errno == EINTR)
        continue;
    ssize_t got = result > 0 ? read(reports, text, sizeof text - 1) : 0;
    if (got > 0 && text[0] == '+')
        return 0;
    return error_set(e, 0, "the container's sshd does not start: %s",
                     result == 0 ? "it does not listen in time" : got > 0 ? text + 1 : "its watcher failed");
}

int sshd_start(int environment, int container, int proc, const struct caller *caller, struct error *e)
{
    int reports[2];
    if (pipe2(reports, O_CLOEXEC) < 0)
        return error_set(e, errno, "cannot make a pipe to the watcher of sshd");
    pid_t parent = getpid(), watcher = fork();
    if (watcher == 0)
        run_watcher(environment, reports[1], container, proc, caller, parent);
    (void)close(reports[1]);
    CLEANUP_CLOSE int from = reports[0];
    if (watcher < 0)
        return error_set(e, errno, "cannot start a process for the container's sshd");
    if (await_report(from, e) == 0)
        return 0;
    (void)kill(watcher, SIGTERM);
    (void)waitpid(watcher, NULL, 0);
    return -1;
}

/* The recorded watcher while it lives, else 0. */
static long recorded(int environment, int proc)
{
    char text[64] = "";
    long pid = 0;
    unsigned long long start = 0;
    CLEANUP_CLOSE int fd = openat(environment, record, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0 || sscanf(text, "%ld %llu", &pid, &start) != 2)
        return 0;
    return pid > 1 && start != 0 && start_time(proc, pid) == start ? pid : 0;
}

bool sshd_is_alive(int environment, int proc)
{
    return recorded(environment, proc) > 0;
}

int sshd_stop(int environment, int proc, struct error *e)
{
    long watcher = recorded(environment, proc);
    if (watcher > 0)
        (void)kill((pid_t)watcher, SIGTERM);
    for (int naps = 0; watcher > 0 && naps < (STOP_SECONDS + 2) * 200; naps++) {
        nap();
        watcher = recorded(environment, proc);
    }
    return watcher == 0 ? 0 : error_set(e, 0, "what the container's sshd started does not end (process %ld)", watcher);
}
