/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/run.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "as_root/kernel.h"
#include "as_root/process.h"
#include "base/text.h"

/* Slurm's prolog has no descriptor 0: what we open must not land on 0 to 2, where the child puts its own. */
static int lift(int fd)
{
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int lifted = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    (void)close(fd);
    return lifted;
}

static int open_pipe(int *from, int *to)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    *from = lift(ends[0]);
    *to = lift(ends[1]);
    return *from < 0 || *to < 0 ? -1 : 0;
}

/* Since Linux 6.3 a node can demand it (vm.memfd_noexec); before, the flag is unknown. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

/* A file in memory rather than a pipe: written before the program starts, so that neither waits for the other. */
static int open_input(const char *text)
{
    if (text == NULL)
        return lift(open("/dev/null", O_RDONLY | O_CLOEXEC));
    int fd = lift(memfd_create("shifter", MFD_CLOEXEC | MFD_NOEXEC_SEAL));
    if (fd < 0 && errno == EINVAL)
        fd = lift(memfd_create("shifter", MFD_CLOEXEC));
    size_t length = strlen(text);
    while (fd >= 0 && length > 0) {
        ssize_t put = write(fd, text, length);
        if (put < 0 && errno != EINTR) {
            (void)close(fd);
            return -1;
        }
        text += put > 0 ? put : 0;
        length -= put > 0 ? (size_t)put : 0;
    }
    if (fd >= 0)
        (void)lseek(fd, 0, SEEK_SET);
    return fd;
}

/* In the child: what a user hands down to it and what would slow root's work, stop it half way or mislead it becomes
 * what it is after a boot. An old or confined kernel that refuses one of these is no reason not to work. */
static void forget_the_caller(void)
{
    static const struct {
        int resource;
        rlim_t soft, hard;
    } limits[] = {
        {RLIMIT_CPU, RLIM_INFINITY, RLIM_INFINITY},     {RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY},
        {RLIMIT_AS, RLIM_INFINITY, RLIM_INFINITY},      {RLIMIT_DATA, RLIM_INFINITY, RLIM_INFINITY},
        {RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY},   {RLIMIT_SIGPENDING, RLIM_INFINITY, RLIM_INFINITY},
        {RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY}, {RLIMIT_STACK, 8U << 20, RLIM_INFINITY},
        {RLIMIT_NOFILE, 1024, 4096},                    {RLIMIT_CORE, 0, RLIM_INFINITY},
    };
    enum { JOIN_SESSION_KEYRING = 1, THIS_PROCESS = 1, TIMER_SLACK = 50000 };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        struct rlimit limit = {limits[i].soft, limits[i].hard};
        if (setrlimit(limits[i].resource, &limit) == 0 || getrlimit(limits[i].resource, &limit) < 0)
            continue;
        limit.rlim_cur = limits[i].soft < limit.rlim_max ? limits[i].soft : limit.rlim_max;
        (void)setrlimit(limits[i].resource, &limit); /* without CAP_SYS_RESOURCE: as far as it goes */
    }
    cpu_set_t all;
    memset(&all, 0xff, sizeof all);
    (void)sched_setaffinity(0, sizeof all, &all);
    (void)sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0});
    (void)setpriority(PRIO_PROCESS, 0, 0);
    (void)syscall(SYS_ioprio_set, THIS_PROCESS, 0, 0);
    (void)syscall(SYS_set_mempolicy, 0, NULL, 0);
    (void)syscall(SYS_keyctl, JOIN_SESSION_KEYRING, NULL);
    (void)personality(PER_LINUX);
    (void)prctl(PR_SET_TIMERSLACK, TIMER_SLACK);
    CLEANUP_CLOSE int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score >= 0 && write(score, "0", 1) < 0)
        return; /* the last one */
}

/* In the child. With a place, nothing of the user who called is left, nor a death that he could cause. He can kill or
 * stop the one who waits: the alarm outlives execve(2). */
static bool take_place(const struct run *run)
{
    const struct run_place *place = run->place;
    if (place == NULL)
        return chdir("/") == 0;
    if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
        return false;
    forget_the_caller();
    (void)alarm(run->seconds + 1);
    /* A script's interpreter opens it through its descriptor. */
    return fchdir(place->directory) == 0 && fcntl(place->program, F_SETFD, 0) == 0;
}

/* Descriptors from 3 on, except these two. */
static bool close_but(int one, int other)
{
    unsigned low = (unsigned)(one < other ? one : other), high = (unsigned)(one < other ? other : one);
    return kernel_close_range(STDERR_FILENO + 1, low - 1) == 0 && kernel_close_range(low + 1, high - 1) == 0 &&
           kernel_close_range(high + 1, UINT_MAX) == 0;
}

static void execute(const struct run *run)
{
    static char path[] = "PATH=/usr/bin:/usr/sbin:/bin:/sbin", locale[] = "LC_ALL=C.UTF-8", shell[] = "/bin/sh";
    static char *const environment[] = {path, locale, NULL};
    if (run->place == NULL) {
        (void)execve(run->arguments[0], (char *const *)run->arguments, environment);
        return;
    }
    struct kernel_fd_path program = kernel_fd_path(run->place->program);
    char *const words[] = {shell, program.text, NULL};
    (void)execve(program.text, (char *const *)run->arguments, environment);
    if (errno == ENOEXEC) /* a script without a first line that says what reads it */
        (void)execve(shell, words, environment);
}

/* In the child: only system calls, and what run->become does. The cause of a failed start goes to `report`, which a
 * successful one closes. */
static _Noreturn void become(const struct run *run, int in, int out, int err, int report, pid_t parent)
{
    (void)setsid();
    struct sigaction standard = {.sa_handler = SIG_DFL};
    for (int number = 1; number <= SIGRTMAX; number++)
        (void)sigaction(number, &standard, NULL);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)umask(022);
    if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
        (run->become != NULL || dup2(err, STDERR_FILENO) >= 0) && take_place(run) &&
        close_but(report, run->place != NULL ? run->place->program : report)) {
        if (run->become != NULL)
            run->become(run->who, report);
        if (run->place == NULL)
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a change of ids would forget it: prctl(2) */
        if (getppid() == parent)
            execute(run);
    }
    int cause = errno;
    ssize_t ignored = write(report, &cause, sizeof cause);
    (void)ignored;
    _exit(127);
}

/* Milliseconds until `end`, 0 when it has passed. */
static int remaining(const struct timespec *end)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    long long left = (end->tv_sec - now.tv_sec) * 1000LL + (end->tv_nsec - now.tv_nsec) / 1000000;
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

/* Reads what is there; false at the end of the stream. */
static bool drain(int fd, char *kept, size_t *length)
{
    char chunk[4096];
    ssize_t got = read(fd, chunk, sizeof chunk);
    if (got < 0)
        return errno == EINTR || errno == EAGAIN;
    if (*length < RUN_KEPT) {
        size_t room = RUN_KEPT - *length;
        memcpy(kept + *length, chunk, (size_t)got < room ? (size_t)got : room);
    }
    *length += (size_t)got;
    return got > 0;
}

/* False when it is time to give up: see wait_for. */
static bool may_go_on(const struct timespec *end)
{
    struct error ignored;
    return remaining(end) > 0 && process_check_signals(&ignored) == 0;
}

static bool says_too_much(const struct run *run)
{
    return run->output_limit > 0 && run->output_length > run->output_limit;
}

/* Both streams until both end (W-12), then the program itself; false when something else came first. */
static bool follow(struct run *run, int out, int err, pid_t child, int *status, const struct timespec *end)
{
    struct pollfd streams[] = {{.fd = out, .events = POLLIN}, {.fd = err, .events = POLLIN}};
    while (streams[0].fd >= 0 || streams[1].fd >= 0) {
        int left = remaining(end);
        if (!may_go_on(end))
            return false;
        if (poll(streams, 2, left < PROCESS_SIGNAL_MILLISECONDS ? left : PROCESS_SIGNAL_MILLISECONDS) <= 0)
            continue;
        if (streams[0].revents != 0 && !drain(out, run->output, &run->output_length))
            streams[0].fd = -1;
        if (streams[1].revents != 0 && !drain(err, run->errors, &run->errors_length))
            streams[1].fd = -1;
        if (says_too_much(run))
            return false;
    }
    const struct timespec moment = {.tv_nsec = 2000000};
    while (waitpid(child, status, WNOHANG) == 0) {
        if (!may_go_on(end))
            return false;
        (void)nanosleep(&moment, NULL);
    }
    return true;
}

/* One line out of what the program said, its own name in front as it prints it. */
static int describe_failure(struct run *run, int status, struct error *e)
{
    char *text = run->errors + strspn(run->errors, " \n");
    size_t length = strlen(text);
    while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == ' '))
        text[--length] = '\0';
    for (char *c = text; *c != '\0'; c++)
        if (*c == '\n')
            *c = ' ';
    if (length > 0)
        return error_set(e, 0, "%s", text);
    if (WIFSIGNALED(status))
        return error_set(e, 0, "%s was killed by signal %d", run->arguments[0], WTERMSIG(status));
    return error_set(e, 0, "%s exited with status %d%s", run->arguments[0], WEXITSTATUS(status),
                     run->become != NULL ? "" : " and did not say why");
}

/* Not even a killed process ends while a file system, perhaps of a user's making, keeps it waiting: false after a
 * while. */
static bool reap(pid_t child)
{
    const struct timespec moment = {.tv_nsec = 10000000};
    for (int tries = 0; tries < 300; tries++) {
        pid_t ended = waitpid(child, NULL, WNOHANG);
        if (ended == child || (ended < 0 && errno != EINTR))
            return true;
        (void)nanosleep(&moment, NULL);
    }
    return false;
}

static int wait_for(struct run *run, int out, int err, pid_t child, struct error *e)
{
    struct timespec end;
    int status = 255 << 8; /* exit status 255: what wait(2) cannot tell is no success */
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += run->seconds;
    if (!follow(run, out, err, child, &status, &end)) {
        (void)kill(-child, SIGKILL);
        bool reaped = reap(child);
        if (process_check_signals(e) < 0)
            return -1;
        if (says_too_much(run))
            return error_set(e, 0, "%s said more than %zu bytes and was killed", run->arguments[0], run->output_limit);
        return error_set(e, 0, "%s did not end within %u seconds and was killed%s", run->arguments[0], run->seconds,
                         reaped ? "" : ", which it has not noticed: it waits for a device or file system");
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : describe_failure(run, status, e);
}

static int start_and_wait(struct run *run, struct error *e)
{
    bool given = run->place != NULL && run->place->input > 0;
    CLEANUP_CLOSE int in = given ? lift(fcntl(run->place->input, F_DUPFD_CLOEXEC, 0)) : open_input(run->input);
    CLEANUP_CLOSE int out_from = -1, out_to = -1, err_from = -1, err_to = -1, report_from = -1, report_to = -1;
    if (in < 0 || open_pipe(&out_from, &out_to) < 0 || open_pipe(&err_from, &err_to) < 0 ||
        open_pipe(&report_from, &report_to) < 0)
        return error_set(e, errno, "cannot prepare to run %s", run->arguments[0]);
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        return error_set(e, errno, "cannot start a process for %s", run->arguments[0]);
    if (child == 0)
        become(run, in, out_to, err_to, report_to, parent);
    int *const ours[] = {&out_to, &err_to, &report_to};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
        (void)close(*ours[i]);
        *ours[i] = -1;
    }
    int cause = 0;
    ssize_t got;
    while ((got = read(report_from, &cause, sizeof cause)) < 0 && errno == EINTR)
        continue;
    if (got == (ssize_t)sizeof cause) {
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
            continue;
        return error_set(e, cause, "cannot execute %s", run->arguments[0]);
    }
    return wait_for(run, out_from, err_from, child, e);
}

int run_program(struct run *run, struct error *e)
{
    memset(run->output, 0, sizeof run->output);
    memset(run->errors, 0, sizeof run->errors);
    run->output_length = run->errors_length = 0;
    /* Where our process ignores SIGCHLD, the kernel would throw the status of the program away (wait(2)). */
    struct sigaction standard = {.sa_handler = SIG_DFL}, before;
    if (sigaction(SIGCHLD, &standard, &before) < 0)
        return error_set(e, errno, "cannot prepare to run %s", run->arguments[0]);
    int result = start_and_wait(run, e);
    (void)sigaction(SIGCHLD, &before, NULL);
    return result;
}
