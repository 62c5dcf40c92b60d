/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/hooks.h"

#include <sys/stat.h>

#include "as_root/run.h"
#include "as_root/trust.h"
#include "base/text.h"

#ifndef HOOK_SECONDS /* tests do not wait so long */
#define HOOK_SECONDS 60
#endif

int hook_run(const char *name, const char *path, int directory, struct error *e)
{
    struct error cause;
    struct stat st;
    CLEANUP_CLOSE int program = trust_open(path, 0, "root", true, &cause);
    if (program < 0)
        return error_set(e, 0, "%s cannot be run: %s", name, cause.text);
    if (fstat(program, &st) < 0 || !S_ISREG(st.st_mode) || (st.st_mode & S_IXUSR) == 0)
        return error_set(e, 0, "%s cannot be run: %s is not an executable file (chmod u+x)", name, path);
    const struct run_place place = {.program = program, .directory = directory};
    const char *const arguments[] = {path, NULL};
    struct run run = {.arguments = arguments, .seconds = HOOK_SECONDS, .place = &place};
    return run_program(&run, &cause) == 0 ? 0 : error_set(e, 0, "%s %s failed: %s", name, path, cause.text);
}
