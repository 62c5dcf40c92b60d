/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/hooks.h"

#include <sys/stat.h>

#include "as_root/run.h"
#include "as_root/trust.h"
#include "base/text.h"

int hook_run(const char *name, const char *const *arguments, int directory, int input, unsigned seconds,
             struct error *e)
{
    const char *path = arguments[0];
    struct error cause;
    struct stat st;
    CLEANUP_CLOSE int program = trust_open(path, 0, "root", true, "", &cause);
    if (program < 0)
        return error_set(e, 0, "%s cannot be run: %s", name, cause.text);
    if (fstat(program, &st) < 0 || !S_ISREG(st.st_mode) || (st.st_mode & S_IXUSR) == 0)
        return error_set(e, 0, "%s cannot be run: %s is not an executable file (chmod u+x)", name, path);
    const struct run_place place = {.program = program, .directory = directory, .input = input};
    struct run run = {.arguments = arguments, .seconds = seconds, .place = &place};
    return run_program(&run, &cause) == 0 ? 0 : error_set(e, 0, "%s %s failed: %s", name, path, cause.text);
}
