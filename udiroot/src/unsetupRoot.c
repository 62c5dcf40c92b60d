/* SPDX-License-Identifier: BSD-3-Clause
 *
 * unsetupRoot [-J HOLDER]: takes one holder off the containers that setupRoot prepared and removes those that nobody
 * holds any more; without -J, removes them all and whatever else is mounted at udiMount and loopMount (spec:
 * sections 15.2, 16).
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "as_root/process.h"
#include "as_root/rootfs.h"
#include "as_root/state.h"
#include "as_user/config.h"
#include "base/text.h"
#include "node/prepare.h"

/* Arguments that the contract does not know are ignored, as it says. */
static int parse_holder(int argc, char **argv, const char **holder, struct error *e)
{
    *holder = NULL;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-J", 2) != 0)
            continue;
        *holder = argv[i][2] != '\0' ? argv[i] + 2 : i + 1 < argc ? argv[++i] : "";
        if (state_check_holder(*holder, e) < 0)
            return -1;
    }
    return 0;
}

static int tear_down(const char *holder, struct error *e)
{
    struct config config;
    struct prepare state;
    if (config_load(SYSCONFDIR "/udiRoot.conf", false, &config, e) < 0)
        return -1;
    CLEANUP_CLOSE int proc = rootfs_open_proc(e);
    if (proc < 0)
        return -1;
    int result = prepare_open(&config, proc, false, &state, e);
    if (result == 0)
        result = prepare_release(&state, proc, holder, e);
    prepare_close(&state);
    return result;
}

int main(int argc, char **argv)
{
    struct error e;
    struct process process;
    const char *holder;
    text_program = "unsetupRoot";
    text_failure = 1;
    (void)clearenv();
    if (process_begin(argc, NULL, &process, &e) == 0 && parse_holder(argc, argv, &holder, &e) == 0) {
        if (getuid() != 0 || geteuid() != 0)
            (void)error_set(&e, 0, "only root can remove a prepared container");
        else if (tear_down(holder, &e) == 0)
            return 0;
    }
    (void)dprintf(STDERR_FILENO, "unsetupRoot: %s\n", e.text);
    return 1;
}
