/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs a setuid or root's program and sends it a signal as soon as one chosen system call has had its effect:
 *
 *     killafter REPORT SIGNAL [-]NUMBER UID GID COMMAND...
 *
 * The program's own calls are counted, from its execve on; NUMBER 0 is never. When it becomes another program, or has
 * ended, before its NUMBERth call, it is left alone. REPORT gets a line `class number-of-call second-argument result` for
 * each: `look` are calls that leave no trace outside the process, so that it makes no difference to anybody else whether it
 * dies before or after them, `fork` make a process, `act` are all others. Exit status: 0 it was hit, and the last line is
 * `end status`, negative for a signal; 1 left alone and it ended well; 2 it failed or could not be traced.
 *
 * With a minus the calls of the program's first child are counted, which gets the signal; the program itself then goes on
 * alone. No other children are counted or traced.
 *
 * The tracer is root: traced by anybody else, a program is not setuid (execve(2)).
 */
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/ptrace.h>

static const unsigned looks[] = {
#ifdef SYS_access /* the calls that newer architectures do without */
    SYS_access, SYS_readlink, SYS_arch_prctl,
#endif
    SYS_read, SYS_pread64, SYS_lseek, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs, SYS_getdents64,
    SYS_readlinkat, SYS_faccessat, SYS_getcwd, SYS_brk, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_getrandom, SYS_getuid,
    SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getgroups, SYS_getpid, SYS_prlimit64, SYS_rt_sigaction, SYS_rt_sigprocmask,
    SYS_rt_sigpending, SYS_set_tid_address, SYS_set_robust_list, SYS_rseq, SYS_futex, SYS_umask, SYS_clock_nanosleep,
};

static void die(const char *what)
{
    fprintf(stderr, "killafter: %s: %s\n", what, strerror(errno));
    exit(2);
}

static _Noreturn void become(char **argv)
{
    uid_t uid = (uid_t)strtoul(argv[4], NULL, 10);
    gid_t gid = (gid_t)strtoul(argv[5], NULL, 10);
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0) /* while we are root: these are the rights that the kernel looks at */
        die("PTRACE_TRACEME");
    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
        die("setresuid");
    (void)raise(SIGSTOP);
    (void)execv(argv[6], argv + 6);
    die(argv[6]);
    _exit(2);
}

/* The program stands at an entry to or an exit from a call: 1 when the chosen one has just been done. */
static int count(pid_t program, unsigned long target, FILE *report)
{
    static unsigned long done;
    static uint64_t number, argument;
    struct ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, program, sizeof info, &info) < 0)
        die("PTRACE_GET_SYSCALL_INFO (Linux 5.3)");
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        number = info.entry.nr;
        argument = info.entry.args[1];
    }
    if (info.op != PTRACE_SYSCALL_INFO_EXIT)
        return 0;
    const char *class = "act";
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++)
        if (number == looks[i])
            class = "look";
#ifdef SYS_fork
    class = number == SYS_fork || number == SYS_vfork ? "fork" : class;
#endif
    class = number == SYS_clone || number == SYS_clone3 ? "fork" : class;
    fprintf(report, "%s %lu %#lx %ld\n", class, (unsigned long)number, (unsigned long)argument, (long)info.exit.rval);
    return ++done == target;
}

static int ended(int status)
{
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 1 : 2;
}

static int wait_for_end(pid_t program)
{
    int status;
    return waitpid(program, &status, 0) == program ? ended(status) : 2;
}

/* The program has just made a child, which stops by itself. */
static pid_t change_to_child(pid_t program)
{
    unsigned long child;
    int status;
    if (ptrace(PTRACE_GETEVENTMSG, program, 0, &child) < 0 || ptrace(PTRACE_DETACH, program, 0, 0) < 0 ||
        waitpid((pid_t)child, &status, __WALL) != (pid_t)child ||
        ptrace(PTRACE_SETOPTIONS, (pid_t)child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) < 0 ||
        ptrace(PTRACE_SYSCALL, (pid_t)child, 0, 0) < 0)
        die("ptrace of the child");
    return (pid_t)child;
}

static int hit(pid_t traced, pid_t program, int number, FILE *report)
{
    int status;
    (void)kill(traced, number);
    if (ptrace(PTRACE_DETACH, traced, 0, 0) < 0 && traced != program) /* dead: its parent hears of it after us */
        (void)waitpid(traced, &status, __WALL);
    if (waitpid(program, &status, 0) != program)
        return 2;
    fprintf(report, "end %d\n", WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status));
    return 0;
}

static int trace(pid_t program, bool of_child, int number, unsigned long target, FILE *report)
{
    int status, programs = 0;
    pid_t traced = program;
    while (waitpid(traced, &status, __WALL) == traced) {
        if (!WIFSTOPPED(status))
            return traced == program ? ended(status) : wait_for_end(program);
        int deliver = 0;
        if (status >> 16 == PTRACE_EVENT_FORK) {
            traced = change_to_child(program);
            continue;
        }
        if (status >> 16 == PTRACE_EVENT_EXEC)
            programs++;
        else if (WSTOPSIG(status) != (SIGTRAP | 0x80))
            deliver = WSTOPSIG(status);
        else if (programs == 1 && of_child == (traced != program) && count(traced, target, report))
            return hit(traced, program, number, report);
        if (ptrace(programs > 1 ? PTRACE_DETACH : PTRACE_SYSCALL, traced, 0, deliver) < 0)
            die("PTRACE_SYSCALL");
        if (programs > 1)
            return wait_for_end(program);
    }
    return 2;
}

int main(int argc, char **argv)
{
    if (argc < 7) {
        fprintf(stderr, "usage: killafter REPORT SIGNAL [-]NUMBER UID GID COMMAND...\n");
        return 2;
    }
    FILE *report = fopen(argv[1], "we");
    if (report == NULL)
        die(argv[1]);
    pid_t program = fork();
    if (program == 0)
        become(argv);
    int status;
    if (program < 0 || waitpid(program, &status, 0) != program || !WIFSTOPPED(status))
        die("fork");
    bool of_child = argv[3][0] == '-';
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL | (of_child ? PTRACE_O_TRACEFORK : 0);
    if (ptrace(PTRACE_SETOPTIONS, program, 0, options) < 0 ||
        ptrace(PTRACE_SYSCALL, program, 0, 0) < 0)
        die("ptrace");
    int result = trace(program, of_child, atoi(argv[2]), strtoul(argv[3] + of_child, NULL, 10), report);
    return fclose(report) == 0 ? result : 2;
}
