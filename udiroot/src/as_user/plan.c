/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_user/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "as_user/caches.h"
#include "base/text.h"

enum { STEPS_AT_ONCE = 32 };

static struct plan_step *add(struct plan *plan, enum plan_kind kind, const char *source, const char *target,
                             const char *reason)
{
    if (plan->count % STEPS_AT_ONCE == 0)
        plan->steps = text_grow(plan->steps, plan->count + STEPS_AT_ONCE, sizeof *plan->steps);
    struct plan_step *step = &plan->steps[plan->count++];
    *step = (struct plan_step){.kind = kind,
                               .source = source != NULL ? text_copy(source) : NULL,
                               .target = text_copy(target),
                               .attributes = MOUNT_NO_SUID | MOUNT_NO_DEVICES,
                               .reason = reason};
    return step;
}

static void add_upper_layer(const struct plan_subject *s, struct plan *plan)
{
    add(plan, PLAN_SCRATCH, s->config->rootfs_type, s->config->udi_mount,
        "memory for the files that are not the image's");
    if (s->image->file_fd >= 0)
        add(plan, PLAN_IMAGE, s->image->id, "/", "the image")->attributes |= MOUNT_READ_ONLY;
    static const char *const directories[] = {"/etc", "/proc", "/sys", "/dev", "/tmp", "/var", "/var/tmp"};
    for (size_t i = 0; i < sizeof directories / sizeof directories[0]; i++)
        add(plan, PLAN_DIRECTORY, NULL, directories[i], "every container has it, whatever the image has there");
    add(plan, PLAN_ETC, s->config->populate_etc_dynamically ? "accounts of this node" : s->config->etc_path, "/etc",
        s->config->populate_etc_dynamically ? "populateEtcDynamically" : "etcPath");
    add(plan, PLAN_FILE, NULL, "/var/shifterConfig.json", "what this container is")->content =
        s->account != NULL ? plan_state_text(s) : NULL;
    if (s->hosts != NULL) {
        struct plan_step *step = add(plan, PLAN_FILE, NULL, "/var/hostsfile", "the nodes of the job");
        step->content = text_copy(s->hosts);
        step->of_job = true;
    }
    for (const struct plan_file *file = s->files; file != NULL && file->path != NULL; file++) {
        if (file->source != NULL)
            continue;
        enum plan_kind kind = file->content != NULL ? PLAN_FILE : PLAN_DIRECTORY;
        struct plan_step *step = add(plan, kind, NULL, file->path, "the job's");
        step->content = file->content != NULL ? text_copy(file->content) : NULL;
        step->of_user = file->of_user;
        step->of_job = true;
    }
}

static void add_binds(const struct volumes *volumes, enum plan_kind kind, const char *reason,
                      enum mount_propagation style, struct plan *plan)
{
    for (size_t i = 0; i < volumes->count; i++) {
        const struct volume *volume = &volumes->items[i];
        bool cache = (volume->flags & VOLUME_PER_NODE_CACHE) != 0;
        CLEANUP_FREE char *described = cache ? text_format("xfs of %" PRIu64 " bytes", volume->cache_size) : NULL;
        struct plan_step *step =
            add(plan, cache ? PLAN_CACHE : kind, cache ? described : volume->from, volume->to, reason);
        step->size = volume->cache_size;
        step->origin = kind == PLAN_VOLUME ? VOLUME_OF_USER : VOLUME_OF_SITE;
        if ((volume->flags & VOLUME_RO) != 0)
            step->attributes |= MOUNT_READ_ONLY;
        step->recursive = (volume->flags & VOLUME_REC) != 0;
        step->propagation = (volume->flags & VOLUME_SLAVE) != 0     ? PROPAGATE_SLAVE
                            : (volume->flags & VOLUME_PRIVATE) != 0 ? PROPAGATE_PRIVATE
                                                                    : style;
    }
}

static void add_hook(const char *path, const char *reason, struct plan *plan)
{
    if (path != NULL)
        add(plan, PLAN_HOOK, path, "/", reason);
}

static struct plan_step *add_own(const char *source, const char *target, const char *reason, struct plan *plan)
{
    struct plan_step *step = add(plan, PLAN_BIND, source, target, reason);
    step->attributes |= MOUNT_READ_ONLY;
    step->trusted = true;
    return step;
}

/* Directories of root's that users execute things from; "/." is an error where there is no directory. */
static struct plan_step *add_tree(const char *source, const char *target, const char *reason, struct plan *plan)
{
    CLEANUP_FREE char *path = text_format("%s/.", source);
    return add_own(path, target, reason, plan);
}

static void add_own_trees(const struct plan_subject *s, struct plan *plan)
{
    struct plan_step *own = NULL;
    if (s->config->opt_udi_image != NULL)
        own = add_tree(s->config->opt_udi_image, "/opt/udiImage", "optUdiImage", plan);
    for (size_t i = 0; own != NULL && i < s->modules->count; i++)
        own->split = own->split || s->modules->items[i]->copy_path != NULL;
    for (size_t i = 0; i < s->modules->count; i++) {
        const struct config_module *module = s->modules->items[i];
        CLEANUP_FREE char *target = text_format("/opt/udiImage/modules/%s", module->name);
        if (module->copy_path != NULL)
            (void)add_tree(module->copy_path, target, "copyPath of a module", plan);
    }
    for (const struct plan_file *file = s->files; file != NULL && file->path != NULL; file++)
        if (file->source != NULL)
            add_own(file->source, file->path, "the job's", plan)->of_job = true;
}

static void add_system_binds(enum mount_propagation style, struct plan *plan)
{
    static const struct {
        const char *path;
        bool devices, optional;
    } binds[] = {{"/sys", false, false}, {"/dev", true, false}, {"/tmp", false, false}, {"/var/tmp", false, true}};
    /* Without what is mounted on it; with the node's hidepid=, which belongs to the file system that is shown. */
    add(plan, PLAN_BIND, "/proc", "/proc", "the processes of this node")->attributes |= MOUNT_NO_EXEC;
    for (size_t i = 0; i < sizeof binds / sizeof binds[0]; i++) {
        struct plan_step *step =
            add(plan, PLAN_BIND, binds[i].path, binds[i].path, "the host's, shared by all containers");
        step->recursive = true;
        step->optional = binds[i].optional;
        step->propagation = style;
        if (binds[i].devices)
            step->attributes &= ~(unsigned)MOUNT_NO_DEVICES;
    }
}

int plan_check(const struct config *config, const struct modules *modules, const struct volumes *volumes,
               struct error *e)
{
    int result = caches_check(config, volumes, VOLUME_OF_USER, e);
    if (result == 0)
        result = caches_check(config, &config->site_fs, VOLUME_OF_SITE, e);
    for (size_t i = 0; i < modules->count && result == 0; i++)
        result = caches_check(config, &modules->items[i]->site_fs, VOLUME_OF_SITE, e);
    return result;
}

void plan_make(const struct plan_subject *s, struct plan *out)
{
    const struct config *config = s->config;
    *out = (struct plan){.writable = config->mount_udi_root_writable};
    enum mount_propagation style = config->mount_propagation_style;
    add_upper_layer(s, out);
    add(out, PLAN_ROOT, NULL, "/", "image and own files in one tree");
    add_hook(config->site_pre_mount_hook, "sitePreMountHook", out);
    add_binds(&config->site_fs, PLAN_BIND, "siteFs", style, out);
    add_hook(config->site_post_mount_hook, "sitePostMountHook", out);
    for (size_t i = 0; i < s->modules->count; i++)
        add_binds(&s->modules->items[i]->site_fs, PLAN_BIND, "siteFs of a module", style, out);
    add_own_trees(s, out);
    for (size_t i = 0; i < s->modules->count; i++)
        add_hook(s->modules->items[i]->root_hook, "roothook of a module", out);
    add_system_binds(style, out);
    if (s->image->file_fd < 0) /* late: what is there already stays, and hooks see nothing of it */
        add(out, PLAN_LOCAL, s->image->id, "/", "the local: image");
    add_binds(s->volumes, PLAN_VOLUME, "a volume of the user", style, out);
    if (!out->writable)
        add(out, PLAN_READ_ONLY, NULL, "/", "mountUdiRootWritable is 0")->attributes |= MOUNT_READ_ONLY;
}

static const char *const kind_names[] = {
    [PLAN_SCRATCH] = "scratch", [PLAN_IMAGE] = "image", [PLAN_DIRECTORY] = "directory",
    [PLAN_ETC] = "etc",         [PLAN_FILE] = "file",   [PLAN_ROOT] = "root",
    [PLAN_BIND] = "bind",       [PLAN_VOLUME] = "volume", [PLAN_CACHE] = "cache",
    [PLAN_HOOK] = "hook",       [PLAN_LOCAL] = "local",   [PLAN_READ_ONLY] = "read-only",
};

/* " ro nosuid ..." */
static char *describe_attributes(const struct plan_step *step)
{
    return text_format("%s%s%s%s%s%s%s", step->attributes & MOUNT_READ_ONLY ? " ro" : "",
                       step->attributes & MOUNT_NO_SUID ? " nosuid" : "",
                       step->attributes & MOUNT_NO_DEVICES ? " nodev" : "",
                       step->attributes & MOUNT_NO_EXEC ? " noexec" : "", step->recursive ? " rec" : "",
                       step->split ? " split" : "", step->propagation == PROPAGATE_SLAVE ? " slave" : " private");
}

char *plan_describe(const struct plan *plan, const struct plan_subject *s)
{
    CLEANUP_FREE char *volumes = volumes_signature(s->volumes);
    struct strings lines = {0};
    strings_take(&lines, text_format("user %u %u\nstore %s\nmodules %s\nvolumes %s\n", (unsigned)s->caller->uid,
                                     (unsigned)s->caller->gid, s->config->image_path, s->modules->names, volumes));
    for (size_t i = 0; i < plan->count; i++) {
        const struct plan_step *step = &plan->steps[i];
        if (step->of_job)
            continue;
        CLEANUP_FREE char *attributes = describe_attributes(step);
        strings_take(&lines, text_format("%s %s -> %s%s\n", kind_names[step->kind],
                                         step->source != NULL ? step->source : "-", step->target, attributes));
    }
    char *text = strings_join(&lines);
    strings_free(&lines);
    return text;
}

/* How many bytes the character at `c` has in UTF-8 (RFC 3629, section 4); 0 when it is none. */
static size_t character_length(const unsigned char *c)
{
    if (c[0] < 0x80)
        return 1;
    if (c[0] < 0xc2 || c[0] > 0xf4)
        return 0;
    unsigned char least = c[0] == 0xe0 ? 0xa0 : c[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char most = c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
    if (c[1] < least || c[1] > most)
        return 0;
    size_t length = c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;
    for (size_t i = 2; i < length; i++)
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

/* A JSON string. Names are bytes: one that is no UTF-8 becomes the escape of a lone surrogate, as Python's
 * surrogateescape has it (PEP 383), so that nothing is lost and the file is UTF-8 all the same. */
static char *quote(const char *text)
{
    static const char digits[] = "0123456789abcdef";
    char *out = text_alloc(6 * strlen(text) + 3), *to = out;
    const unsigned char *c = (const unsigned char *)text;
    *to++ = '"';
    while (*c != '\0') {
        size_t length = character_length(c);
        if (length == 0 || *c < ' ') {
            to = stpcpy(to, length == 0 ? "\\udc" : "\\u00");
            *to++ = digits[*c >> 4];
            *to++ = digits[*c++ & 15];
            continue;
        }
        if (*c == '"' || *c == '\\')
            *to++ = '\\';
        memcpy(to, c, length);
        to += length;
        c += length;
    }
    *to = '"';
    return out;
}

void plan_explain(const struct plan *plan, int fd)
{
    for (size_t i = 0; i < plan->count; i++) {
        const struct plan_step *step = &plan->steps[i];
        CLEANUP_FREE char *attributes = describe_attributes(step);
        (void)dprintf(fd, "step%1$c%2$s%1$c%3$s%1$c%4$s%1$c%5$s%1$c%6$s%1$c", 0, kind_names[step->kind],
                      step->source != NULL ? step->source : "", step->target, attributes, step->reason);
    }
}

char *plan_state_text(const struct plan_subject *s)
{
    CLEANUP_FREE char *signature = volumes_signature(s->volumes);
    CLEANUP_FREE char *volumes = quote(signature), *identifier = quote(s->image->id);
    CLEANUP_FREE char *user = quote(s->account->name), *modules = quote(s->modules->names);
    return text_format("{\"identifier\":%s,\"user\":%s,\"volMap\":%s,\"modules\":%s}\n", identifier, user, volumes,
                       modules);
}

void plan_free(struct plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        free(plan->steps[i].source);
        free(plan->steps[i].target);
        free(plan->steps[i].content);
    }
    free(plan->steps);
    *plan = (struct plan){0};
}
