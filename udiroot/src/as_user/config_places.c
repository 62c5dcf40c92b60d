/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/config_places.h"

/* Filesystem Hierarchy Standard 3.0, chapter 3, and what of /var and /usr is often a mount of its own. */
static const char *const system_directories[] = {
    "/bin",  "/boot", "/dev", "/etc",  "/home", "/lib",     "/lib32",   "/lib64",   "/media",   "/mnt",     "/opt",
    "/proc", "/root", "/run", "/sbin", "/srv",  "/sys",     "/tmp",     "/usr/bin", "/usr/lib", "/usr/local",
    "/usr/sbin", "/usr/share", "/var/cache", "/var/lib", "/var/log", "/var/run", "/var/spool", "/var/tmp",
};
static const char *const kernel_directories[] = {"/dev", "/proc", "/sys"};

int config_check_place(const char *path, struct error *e)
{
    for (size_t i = 0; i < sizeof system_directories / sizeof system_directories[0]; i++)
        if (path_is_below(system_directories[i], path))
            return error_set(e, 0,
                             "%.200s is a directory of the system, of which unsetupRoot would take every mount away; "
                             "name a directory of shifter's own, such as /var/udiMount",
                             path);
    for (size_t i = 0; i < sizeof kernel_directories / sizeof kernel_directories[0]; i++)
        if (path_is_below(path, kernel_directories[i]))
            return error_set(e, 0,
                             "%.200s is in %s, which every container shows; name another place, such as /var/udiMount",
                             path, kernel_directories[i]);
    return 0;
}

int config_check_nesting(const struct config *config, const char *file, struct strings *errors, struct error *e)
{
    const struct {
        const char *key, *path;
    } outer[] = {{"udiMount", config->udi_mount}, {"loopMount", config->loop_mount}},
      inner[] = {{"imagePath", config->image_path},           {"udiRootPath", config->udi_root_path},
                 {"etcPath", config->etc_path},               {"optUdiImage", config->opt_udi_image},
                 {"perNodeCachePath", config->per_node_cache_path}};
    for (size_t o = 0; o < sizeof outer / sizeof outer[0]; o++)
        for (size_t i = 0; i < sizeof inner / sizeof inner[0]; i++) {
            if (outer[o].path == NULL || inner[i].path == NULL || !path_is_below(inner[i].path, outer[o].path))
                continue;
            (void)error_set(e, 0, "%s: %s: %.200s is in %s (%.200s), of which unsetupRoot takes every mount away; use "
                                  "separate directories",
                            file, inner[i].key, inner[i].path, outer[o].key, outer[o].path);
            if (errors == NULL)
                return -1;
            strings_add(errors, e->text);
        }
    return 0;
}
