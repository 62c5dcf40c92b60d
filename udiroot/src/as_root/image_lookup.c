/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/image_store.h"

#include <stdio.h>
#include <string.h>

#include "as_root/privilege.h"
#include "as_root/rootfs.h"
#include "as_root/run.h"
#include "as_root/trust.h"

struct client {
    const struct process *process;
    const struct caller *caller;
};

/* In the child: from root to the caller for good, as for the command itself, with his limits too: what runs under his
 * name he can trace and steer. The process manager's descriptor is the command's alone. */
static void become_client(const void *who, int kept)
{
    const struct client *client = who;
    struct process process = *client->process;
    struct error e;
    int proc = rootfs_open_proc(&e);
    process.kept_fd = kept;
    if (proc >= 0 && privilege_drop(client->caller, proc, &e) == 0 && process_restore(&process, &e) == 0)
        return;
    (void)dprintf(STDERR_FILENO, "shifter: %s\n", e.text);
    _exit(EXIT_SHIFTER);
}

int image_gateway_lookup(const struct config *config, const struct image_spec *spec, const struct process *process,
                         const struct caller *caller, char id[IMAGE_ID_LENGTH + 1], struct error *e)
{
    CLEANUP_FREE char *program = text_format("%s/bin/shifterimg", config->udi_root_path);
    CLEANUP_FREE char *reference = text_format("%s:%s", image_type_names[spec->type], spec->tag);
    CLEANUP_CLOSE int checked = trust_open(program, 0, "root", true, "udiRootPath", e);
    if (checked < 0)
        return -1;
    const char *const arguments[] = {program, "lookup", reference, NULL};
    const struct client client = {.process = process, .caller = caller};
    struct run run = {.arguments = arguments, .seconds = config_lookup_seconds(config), .become = become_client,
                      .who = &client, .output_limit = IMAGE_ID_LENGTH + 1};
    struct error cause;
    if (run_program(&run, &cause) < 0)
        return error_set(e, 0,
                         "image %.200s could not be looked up: %s; if nobody pulled it yet: shifterimg pull %.200s; if "
                         "the image gateway is slow, see gatewayTimeout; an image named by its id (id:...) needs no "
                         "look-up",
                         reference, cause.text, reference);
    bool one_line = run.output_length == IMAGE_ID_LENGTH + 1 && run.output[IMAGE_ID_LENGTH] == '\n';
    run.output[IMAGE_ID_LENGTH] = '\0';
    if (!one_line || !image_is_id(run.output))
        return error_set(e, 0, "%s lookup %.200s did not answer with an image id", program, reference);
    memcpy(id, run.output, IMAGE_ID_LENGTH + 1);
    return 0;
}
