/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs a program and kills it (SIGKILL) at the entry of one chosen system call, so that this call has no effect:
 *
 *     killat REPORT PHASE CLASS NUMBER COMMAND...    kill at that call
 *     killat REPORT - - 0 COMMAND...                 kill never
 *
 * The program says in which PHASE it is by close(PHASE_MARK + phase), which closes nothing; before that nothing counts.
 * Calls of all its threads are counted, by phase and by CLASS: `change` are those that change something on a disk, `look`
 * are those that only read there; no other call makes a difference to what a dead process leaves. REPORT gets one line
 * `phase class name-of-call-or-number` for each. Exit status: 0 killed as asked, 1 it ended well before that, 2 it failed or could not be traced.
 *
 * strace(1) can inject signals, but counts for each thread and each call on its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/ptrace.h>

enum { PHASE_MARK = 0x7fff0000, PHASES = 16, CLASSES = 2 };
enum { CHANGE, LOOK, NEITHER };
static const char *const class_names[CLASSES] = {"change", "look"};

struct call {
    long number;
    int class;
    const char *name;
};

#define CALL(class, name) {SYS_##name, class, #name}
static const struct call calls[] = {
#ifdef SYS_rename /* the calls that newer architectures do without */
    CALL(CHANGE, rename), CALL(CHANGE, unlink), CALL(CHANGE, link), CALL(CHANGE, mkdir), CALL(CHANGE, rmdir),
    CALL(CHANGE, chmod), CALL(CHANGE, symlink), CALL(LOOK, stat), CALL(LOOK, lstat), CALL(LOOK, access),
    CALL(LOOK, readlink),
#endif
#ifdef SYS_renameat
    CALL(CHANGE, renameat),
#endif
    CALL(CHANGE, renameat2), CALL(CHANGE, unlinkat), CALL(CHANGE, linkat), CALL(CHANGE, symlinkat),
    CALL(CHANGE, mkdirat), CALL(CHANGE, write), CALL(CHANGE, pwrite64), CALL(CHANGE, writev), CALL(CHANGE, pwritev),
    CALL(CHANGE, sendfile), CALL(CHANGE, copy_file_range), CALL(CHANGE, splice), CALL(CHANGE, ftruncate),
    CALL(CHANGE, truncate), CALL(CHANGE, fallocate), CALL(CHANGE, fsync), CALL(CHANGE, fdatasync), CALL(CHANGE, fchmod),
    CALL(CHANGE, fchmodat), CALL(CHANGE, fchown), CALL(CHANGE, utimensat), CALL(LOOK, openat), CALL(LOOK, read),
    CALL(LOOK, pread64), CALL(LOOK, close), CALL(LOOK, fstat), CALL(LOOK, newfstatat), CALL(LOOK, statx),
    CALL(LOOK, lseek), CALL(LOOK, flock), CALL(LOOK, fcntl), CALL(LOOK, getdents64), CALL(LOOK, faccessat),
    CALL(LOOK, readlinkat),
};

struct target {
    int phase, class;
    unsigned long number;
};

static void die(const char *what)
{
    fprintf(stderr, "killat: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int class_of(const struct ptrace_syscall_info *info, const char **name)
{
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if ((uint64_t)calls[i].number == info->entry.nr) {
            *name = calls[i].name;
            int creates = info->entry.nr == SYS_openat && (info->entry.args[2] & O_CREAT) != 0;
            return creates ? CHANGE : calls[i].class;
        }
    return NEITHER;
}

/* Counts the call that `thread` is about to make; 1 if it is the chosen one. */
static int count(pid_t thread, const struct target *target, FILE *report)
{
    static unsigned long counts[PHASES][CLASSES];
    static int phase = -1;
    struct ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) < 0) {
        if (errno == ESRCH) /* killed meanwhile */
            return 0;
        die("PTRACE_GET_SYSCALL_INFO (Linux 5.3)");
    }
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
        return 0;
    if (info.entry.nr == SYS_close && (info.entry.args[0] & ~(uint64_t)(PHASES - 1)) == PHASE_MARK) {
        phase = (int)(info.entry.args[0] & (PHASES - 1));
        return 0;
    }
    const char *name = NULL;
    int class = class_of(&info, &name);
    if (phase < 0 || class == NEITHER)
        return 0;
    fprintf(report, "%d %s %s\n", phase, class_names[class], name);
    unsigned long number = ++counts[phase][class];
    return phase == target->phase && class == target->class && number == target->number;
}

/* Until the program is gone: the exit status for it. */
static int trace(pid_t program, const struct target *target, FILE *report)
{
    int killed = 0, failed = 0, status;
    pid_t thread;
    while ((thread = waitpid(-1, &status, __WALL)) > 0) {
        if (!WIFSTOPPED(status)) {
            failed = failed || (thread == program && status != 0);
            continue;
        }
        int number = WSTOPSIG(status), deliver = 0;
        if (number == (SIGTRAP | 0x80))
            killed = killed || count(thread, target, report);
        else if (number != SIGTRAP && number != SIGSTOP) /* those two are the tracing's own here */
            deliver = number;
        if (killed)
            (void)kill(program, SIGKILL);
        (void)ptrace(PTRACE_SYSCALL, thread, 0, deliver); /* fails for what has just been killed */
    }
    return killed ? 0 : failed ? 2 : 1;
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "usage: killat REPORT PHASE CLASS NUMBER COMMAND...\n");
        return 2;
    }
    struct target target = {atoi(argv[2]), strcmp(argv[3], "look") == 0 ? LOOK : CHANGE, strtoul(argv[4], NULL, 10)};
    FILE *report = fopen(argv[1], "we");
    if (report == NULL)
        die(argv[1]);
    pid_t program = fork();
    if (program == 0) {
        (void)ptrace(PTRACE_TRACEME, 0, 0, 0);
        (void)raise(SIGSTOP);
        (void)execv(argv[5], argv + 5);
        die(argv[5]);
    }
    int status;
    if (program < 0 || waitpid(program, &status, 0) != program)
        die("fork");
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                   PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SETOPTIONS, program, 0, options) < 0 || ptrace(PTRACE_SYSCALL, program, 0, 0) < 0)
        die("ptrace");
    int result = trace(program, &target, report);
    return fclose(report) == 0 ? result : 2;
}
