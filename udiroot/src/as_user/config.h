/* SPDX-License-Identifier: BSD-3-Clause
 *
 * udiRoot.conf (spec: runtime contract, section 3). The file is opened once; every trust decision is made with fstat on
 * that descriptor. One parser serves the setuid launcher, setupRoot, shifterimg and the checker (through _core.c).
 */
#ifndef SHIFTER_CONFIG_H
#define SHIFTER_CONFIG_H

#include <stdbool.h>
#include <sys/types.h>

#include "as_user/attributes.h"
#include "as_user/environ.h"
#include "as_user/volumes.h"
#include "base/error.h"
#include "base/text.h"

struct config_module { /* module_<name>_* keys, section 3.4 */
    char *name;
    struct site_environ environ;
    struct volumes site_fs;
    char *copy_path, *root_hook, *user_hook;
    struct strings conflict;
    bool enabled;
};

struct config {
    /* section 3.3, in its order; names follow the keys */
    char *udi_mount;
    char *loop_mount;    /* NULL when the site names none; only what older versions left there is taken away */
    char *image_path;
    char *image_owner;   /* imageOwner: account that may own the image store besides root; default "root" */
    uid_t image_owner_uid; /* (uid_t)-1, which owns no file, when the account is unknown here */
    char *udi_root_path;
    char *etc_path;
    char *rootfs_type;
    bool mount_udi_root_writable;
    unsigned max_group_count; /* 0 = unlimited */
    bool allow_local_chroot;
    bool allow_libc_pwd_calls;
    bool populate_etc_dynamically;
    struct strings users_to_import;
    char *opt_udi_image;
    char *site_pre_mount_hook, *site_post_mount_hook;
    struct volumes site_fs;
    struct site_environ site_environ;
    enum mount_propagation mount_propagation_style;
    char *per_node_cache_path;
    uint64_t per_node_cache_size_limit;
    struct strings per_node_cache_allowed_fs_type;
    char *mkfs_xfs_path;
    char *site_resources;
    struct strings image_gateway;
    unsigned gateway_timeout; /* seconds, 0 = none */
    char *system;
    char *default_image_type;
    char *batch_type;
    char *default_modules;
    struct config_module *modules;
    size_t module_count;
    /* tool paths that the contract names and nothing here executes; kept for the checker */
    struct strings accepted_unused;
    /* "path:LINE: message" remarks: unknown keys with a suggestion, deprecated keys; printed by the checker, and by
     * shifter only with --verbose */
    struct strings remarks;
};

/* An unknown key is a remark, a bad value of a known one an error with its line. After an error `out` holds nothing.
 *
 * Opens, verifies (regular file, owner root unless `trust_any_owner`, not writable by group or others) and parses.
 * `trust_any_owner` is for unprivileged clients and tests (shifterimg --config); no setuid or root program sets it. */
int config_load(const char *path, bool trust_any_owner, struct config *out, struct error *e);
/* Same on text that is already in memory; `name` appears in messages. For tests and fuzzing. */
int config_parse(const char *text, size_t length, const char *name, struct config *out, struct error *e);
/* The same for a checker: every error that belongs to a line or key is added to `errors`, `out` holds what was good. -1
 * only for what is no text. */
int config_examine(const char *text, size_t length, const char *name, struct config *out, struct strings *errors,
                   struct error *e);
/* How long `shifterimg lookup` may take: gatewayTimeout for each gateway, as it tries them one after the other. */
unsigned config_lookup_seconds(const struct config *config);
void config_free(struct config *config);

#endif
