/* SPDX-License-Identifier: BSD-3-Clause */
#include "node/apart.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "as_root/kernel.h"
#include "as_root/process.h"
#include "as_root/rootfs.h"
#include "base/text.h"

enum { BUILD_SECONDS = 30, HOOK_ALLOWANCE = 60, PASSED = 2 /* descriptors */ };

struct answer { /* with up to PASSED descriptors; without one it is an error */
    struct error error;
};

union passing { /* room for descriptors, aligned: cmsg(3) */
    struct cmsghdr header;
    char room[CMSG_SPACE(PASSED * sizeof(int))];
};

static void send_answer(int to, struct answer *answer, const int *fds, size_t count)
{
    union passing passing = {0};
    struct iovec data = {.iov_base = answer, .iov_len = sizeof *answer};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (count > 0) {
        passing.header = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(count * sizeof *fds), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&passing.header), fds, count * sizeof *fds);
        message.msg_control = passing.room;
        message.msg_controllen = CMSG_SPACE(count * sizeof *fds);
    }
    (void)sendmsg(to, &message, MSG_NOSIGNAL);
}

/* In the child. It does not keep the streams that others read to their end. */
static _Noreturn void build(const struct plan *plan, const struct plan_subject *subject, int proc, int to)
{
    struct answer answer = {0};
    int fds[PASSED] = {-1, -1}, null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (null < 0 || dup2(null, fd) < 0)
            _exit(1);
    if (rootfs_build(plan, subject, proc, &answer.error) == 0) {
        CLEANUP_CLOSE int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if ((fds[0] = openat(proc, "self/ns/mnt", O_RDONLY | O_CLOEXEC)) < 0)
            (void)error_set(&answer.error, errno, "cannot open the container's mount namespace");
        fds[1] = root < 0 ? -1 : kernel_clone_mount(root, true);
    }
    send_answer(to, &answer, fds, fds[0] < 0 ? 0 : fds[1] < 0 ? 1 : PASSED);
    _exit(0);
}

static int receive_answer(int from, int *container, int *tree, struct error *e)
{
    struct answer answer = {0};
    union passing passing = {0};
    struct iovec data = {.iov_base = &answer, .iov_len = sizeof answer};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = passing.room, .msg_controllen = sizeof passing.room};
    if (recvmsg(from, &message, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof answer)
        return error_set(e, 0, "the process that built the container ended before it was ready");
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL) {
        *e = answer.error;
        return -1;
    }
    int fds[PASSED] = {-1, -1};
    memcpy(fds, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
    *container = fds[0];
    *tree = fds[1];
    return 0;
}

/* Asked to end, we ask the child to: it holds signals as we do, and has to stop its hook. */
static bool wait_for_answer(int fd, pid_t child, unsigned seconds)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    struct timespec now, end;
    struct error ignored;
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += seconds;
    int ready;
    do {
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        ready = poll(&one, 1, now.tv_sec < end.tv_sec ? PROCESS_SIGNAL_MILLISECONDS : 0);
        if (ready == 0 && process_check_signals(&ignored) < 0)
            (void)kill(child, SIGTERM);
    } while (ready <= 0 && (ready == 0 || errno == EINTR) && now.tv_sec < end.tv_sec);
    return ready > 0;
}

int apart_build(const struct plan *plan, const struct plan_subject *subject, int proc, int *container, int *tree,
                struct error *e)
{
    unsigned seconds = BUILD_SECONDS;
    for (size_t i = 0; i < plan->count; i++)
        seconds += plan->steps[i].kind == PLAN_HOOK ? HOOK_ALLOWANCE : 0;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return error_set(e, errno, "cannot prepare to build the container");
    CLEANUP_CLOSE int from = ends[0], to = ends[1];
    pid_t child = fork();
    if (child < 0)
        return error_set(e, errno, "cannot start a process that builds the container");
    if (child == 0)
        build(plan, subject, proc, to);
    (void)close(to);
    to = -1;
    if (!wait_for_answer(from, child, seconds)) {
        (void)kill(child, SIGKILL); /* it may never come to notice */
        return error_set(e, 0,
                         "the container was not built within %u seconds; does every file system answer that the user's "
                         "volumes and local: image lead to?",
                         seconds);
    }
    int result = receive_answer(from, container, tree, e);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        continue;
    return result;
}
