/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "as_root/trust.h"
#include "as_user/image.h"

enum {
    DEFAULT_TIMEOUT = 60, /* seconds; for each gateway, as the client tries them one after the other */
    GRACE = 2,            /* seconds more than that: the client knows better than we what went wrong */
    ANSWER_LIMIT = 128,
    RETRY_MILLISECONDS = 5
};

struct question {
    char *program, *reference;
    unsigned seconds;
    const struct process *process;
    const struct caller *caller;
    pid_t asker;
};

/* In the child: from root to the caller for good, as for the command itself. Returns only when something fails. */
static int become_client(const struct question *q, int answer, struct error *e)
{
    char lookup[] = "lookup", path[] = "PATH=/usr/local/bin:/usr/bin:/bin", language[] = "LANG=C.UTF-8";
    char *arguments[] = {q->program, lookup, q->reference, NULL};
    char *environment[] = {path, language, NULL};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC), proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (null < 0 || proc < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(answer, STDOUT_FILENO) < 0)
        return error_set(e, errno, "cannot prepare the look-up of the image");
    /* His limits too: what runs under his name he can trace and steer. */
    if (privilege_drop(q->caller, proc, e) < 0 || process_restore(q->process, e) < 0)
        return -1;
    if (q->process->kept_fd >= 0 && fcntl(q->process->kept_fd, F_SETFD, FD_CLOEXEC) < 0)
        return error_set(e, errno, "cannot keep the process manager's descriptor from the look-up");
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != q->asker)
        return error_set(e, 0, "the look-up of the image lost the process that asked");
    (void)execve(q->program, arguments, environment);
    return error_set(e, errno, "cannot execute %s to look the image up", q->program);
}

static long long now_milliseconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Everything the client says, at most one byte more than an answer may have. Returns the length, -1 at the deadline. */
static ssize_t read_answer(int fd, long long deadline, char answer[ANSWER_LIMIT + 1])
{
    size_t used = 0;
    while (used <= ANSWER_LIMIT) {
        long long left = deadline - now_milliseconds();
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (left <= 0)
            return -1;
        if (poll(&wait, 1, left > 60000 ? 60000 : (int)left) <= 0)
            continue;
        ssize_t got = read(fd, answer + used, ANSWER_LIMIT + 1 - used);
        if (got == 0 || (got < 0 && errno != EINTR))
            break;
        used += got > 0 ? (size_t)got : 0;
    }
    return (ssize_t)used;
}

/* Its wait status, -1 when it had to be killed. */
static int reap(pid_t child, long long deadline, bool give_up)
{
    int status;
    pid_t done;
    while (!give_up && (done = waitpid(child, &status, WNOHANG)) != child) {
        if (done < 0 && errno != EINTR)
            return -1;
        if (now_milliseconds() >= deadline)
            give_up = true;
        else
            (void)poll(NULL, 0, RETRY_MILLISECONDS);
    }
    if (!give_up)
        return status;
    (void)kill(child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        /* again */
    }
    return -1;
}

static int explain(const struct question *q, int status, struct error *e)
{
    if (status == -1)
        return error_set(e, 0,
                         "the look-up of %.200s was given up after %u seconds (gatewayTimeout); is the image gateway "
                         "running? An image named by its id (id:...) needs none",
                         q->reference, q->seconds);
    if (WIFSIGNALED(status))
        return error_set(e, 0, "the look-up of %.200s (%s lookup) died of signal %d", q->reference, q->program,
                         WTERMSIG(status));
    return error_set(e, 0,
                     "image %.200s could not be looked up (%s lookup: exit status %d); if nobody pulled it yet: "
                     "shifterimg pull %.200s",
                     q->reference, q->program, WEXITSTATUS(status), q->reference);
}

/* Returns the length of what the client said. */
static ssize_t ask(const struct question *q, char answer[ANSWER_LIMIT + 1], struct error *e)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(e, errno, "cannot make a pipe for the look-up of the image");
    long long deadline = now_milliseconds() + 1000LL * q->seconds;
    pid_t child = fork();
    if (child == 0) {
        (void)become_client(q, ends[1], e);
        (void)dprintf(STDERR_FILENO, "shifter: %s\n", e->text);
        _exit(EXIT_SHIFTER);
    }
    int cause = errno;
    (void)close(ends[1]);
    ssize_t length = child < 0 ? -1 : read_answer(ends[0], deadline, answer);
    (void)close(ends[0]);
    if (child < 0)
        return error_set(e, cause, "cannot start the look-up of the image");
    int status = reap(child, deadline, length < 0);
    return status == 0 ? length : explain(q, status, e);
}

static unsigned patience(const struct config *config)
{
    unsigned long long seconds = config->gateway_timeout > 0 ? config->gateway_timeout : DEFAULT_TIMEOUT;
    seconds = seconds * (config->image_gateway.count > 0 ? config->image_gateway.count : 1) + GRACE;
    return seconds < INT_MAX ? (unsigned)seconds : INT_MAX;
}

int image_gateway_lookup(const struct config *config, const struct image_spec *spec, const struct process *process,
                         const struct caller *caller, char id[IMAGE_ID_LENGTH + 1], struct error *e)
{
    CLEANUP_FREE char *program = text_format("%s/bin/shifterimg", config->udi_root_path);
    CLEANUP_FREE char *reference = text_format("%s:%s", image_type_names[spec->type], spec->tag);
    char answer[ANSWER_LIMIT + 1] = "";
    CLEANUP_CLOSE int checked = trust_open(program, 0, "root", true, e);
    if (checked < 0)
        return -1;
    struct question q = {.program = program, .reference = reference, .seconds = patience(config),
                         .process = process, .caller = caller, .asker = getpid()};
    ssize_t length = ask(&q, answer, e);
    if (length < 0)
        return -1;
    if (length == IMAGE_ID_LENGTH + 1 && answer[IMAGE_ID_LENGTH] == '\n') {
        answer[IMAGE_ID_LENGTH] = '\0';
        if (image_is_id(answer)) {
            memcpy(id, answer, IMAGE_ID_LENGTH + 1);
            return 0;
        }
    }
    return error_set(e, 0, "%s lookup %.200s did not answer with an image id", program, reference);
}
