/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/userhooks.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "as_user/config.h"

/* In the child: what the command will be but for its environment, its input and the process manager's descriptor. */
static _Noreturn void become(char *path, const struct process *process, const char *workdir)
{
    char search[] = "PATH=/usr/bin:/usr/sbin:/bin:/sbin", locale[] = "LC_ALL=C.UTF-8", shell[] = "/bin/sh";
    char *const environment[] = {search, locale, NULL}, *const alone[] = {path, NULL};
    char *const with_shell[] = {shell, path, NULL};
    struct error ignored;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || process_restore(process, &ignored) < 0)
        _exit(EXIT_SHIFTER);
    if (process->kept_fd >= 0)
        (void)close(process->kept_fd);
    if (workdir != NULL)
        (void)process_change_directory(workdir); /* or stay in "/" */
    (void)execve(path, alone, environment);
    if (errno == ENOEXEC)
        (void)execve(shell, with_shell, environment);
    _exit(errno == ENOENT || errno == ENOTDIR ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

int userhooks_run(const struct modules *modules, const struct process *process, const char *workdir, struct error *e)
{
    for (size_t i = 0; i < modules->count; i++) {
        const struct config_module *module = modules->items[i];
        if (module->user_hook == NULL)
            continue;
        pid_t child = fork();
        int status = 0;
        if (child == 0)
            become(module->user_hook, process, workdir);
        while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
            continue;
        if (child < 0)
            return error_set(e, errno, "cannot start a process for the userhook of module %s", module->name);
        if (WIFSIGNALED(status))
            return error_set(e, 0, "userhook %s of module %s was killed by signal %d", module->user_hook, module->name,
                             WTERMSIG(status));
        if (WEXITSTATUS(status) != 0)
            return error_set(e, 0, "userhook %s of module %s exited with status %d%s", module->user_hook, module->name,
                             WEXITSTATUS(status),
                             WEXITSTATUS(status) == EXIT_NOT_FOUND ? " (is it in the container?)" : "");
    }
    return 0;
}
