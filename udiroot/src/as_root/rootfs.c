/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/rootfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "as_root/container_path.h"
#include "as_root/etcfiles.h"
#include "as_root/hooks.h"
#include "as_root/image_local.h"
#include "as_root/loop.h"
#include "as_root/mounts.h"
#include "as_root/nodecache.h"
#include "as_root/trust.h"
#include "base/text.h"

/* Room for what is not the image's: /etc files and mount points. Bounds what a writable root can take from the node. */
static const char tmpfs_options[] = "mode=0755,size=256m,nr_inodes=65536";

enum { PROC_MAGIC = 0x9fa0 };

struct site { /* where the building stands; descriptors are O_PATH */
    const struct plan_subject *subject;
    int proc;
    int scratch, upper, root;   /* -1 until their step */
    int local;                  /* directory of the local: image, or -1 */
    struct container container; /* from PLAN_ROOT on */
    size_t hooks;               /* that are still to be run */
};

int rootfs_open_proc(struct error *e)
{
    int fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct statfs fs;
    if (fd < 0 || fstatfs(fd, &fs) < 0)
        return error_set(e, errno, "cannot open /proc");
    if (fs.f_type != PROC_MAGIC) {
        (void)close(fd);
        return error_set(e, 0, "/proc of this system is not procfs; mount it");
    }
    return fd;
}

int rootfs_open_udi_mount(const struct config *config, struct error *e)
{
    if (mkdir(config->udi_mount, 0755) < 0 && errno != EEXIST && errno != EROFS)
        return error_set(e, errno, "cannot create udiMount %s", config->udi_mount);
    return trust_open_directory(config->udi_mount, 0, "root", "udiMount", e);
}

static int make_scratch(struct site *site, const struct plan_step *step, struct error *e)
{
    bool bounded = strcmp(step->source, "tmpfs") == 0;
    if (!bounded && site->subject->config->mount_udi_root_writable)
        return error_set(e, 0,
                         "a writable container (mountUdiRootWritable=1) needs rootfsType=tmpfs: a %s has no limit",
                         step->source);
    const char *options = bounded ? tmpfs_options : NULL;
    int result = -1;
    /* A prepared container that is shown there goes with the host's, also after it was opened. */
    for (int try = 0; result < 0 && (try == 0 || ((errno == ENOENT || errno == EINVAL) && try < 8)); try++) {
        CLEANUP_CLOSE int base = rootfs_open_udi_mount(site->subject->config, e);
        if (base < 0)
            return -1;
        result = mount("shifter", kernel_fd_path(base).text, step->source, MS_NOSUID | MS_NODEV, options);
    }
    if (result < 0)
        return error_set(e, errno, "cannot mount a %s (rootfsType) on %s", step->source, step->target);
    if ((site->scratch = kernel_open_no_symlinks(step->target)) < 0 || fchdir(site->scratch) < 0)
        return error_set(e, errno, "cannot enter %s", step->target);
    /* Nothing may travel from here to a peer, whatever the propagation of the directory below is. */
    if (mount(NULL, ".", NULL, MS_PRIVATE, NULL) < 0)
        return error_set(e, errno, "cannot make %s private", step->target);
    static const char *const names[] = {"image", "upper", "work", "root"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (mkdir(names[i], 0755) < 0)
            return error_set(e, errno, "cannot create %s/%s", step->target, names[i]);
    if ((site->upper = open("upper", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
        return error_set(e, errno, "cannot open %s/upper", step->target);
    return 0;
}

/* squashfs_super_block: magic at 0, bytes_used (little endian, 64 bit) at 40, version 4.0 at 28. The type is fixed by
 * us and checked before the kernel's parser sees the file; nothing is ever probed. */
static int check_squashfs(const struct image *image, struct error *e)
{
    unsigned char block[96];
    if (strcmp(image->meta.format, "squashfs") != 0)
        return error_set(e, 0, "image %s has format %s; only squashfs images can be run", image->id,
                         image->meta.format);
    if (pread(image->file_fd, block, sizeof block, 0) != (ssize_t)sizeof block || memcmp(block, "hsqs", 4) != 0 ||
        block[28] != 4 || block[29] != 0 || block[30] != 0 || block[31] != 0)
        return error_set(e, 0, "the file of image %s is not a squashfs 4.0 file system; pull the image again",
                         image->id);
    uint64_t used = 0;
    for (int i = 7; i >= 0; i--)
        used = used << 8 | block[40 + i];
    if (used > (uint64_t)image->status.st_size)
        return error_set(e, 0, "the file of image %s is cut short; pull the image again", image->id);
    return 0;
}

static int mount_image(const struct site *site, struct error *e)
{
    const struct image *image = site->subject->image;
    if (check_squashfs(image, e) < 0)
        return -1;
    struct loop loop;
    if (loop_attach(image->file_fd, &image->status, image->id, &loop, e) < 0)
        return -1;
    CLEANUP_CLOSE int device = loop.fd;
    struct stat device_status, mounted;
    if (mount(loop.device, "image", "squashfs", MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
        return error_set(e, errno,
                         "cannot mount image %s from %s as squashfs (does this kernel support its compression?)",
                         image->id, loop.device);
    if (fstat(device, &device_status) < 0 || stat("image", &mounted) < 0)
        return error_set(e, errno, "cannot examine the mounted image %s", image->id);
    if (mounted.st_dev != device_status.st_rdev)
        return error_set(e, 0, "the mounted image is not image %s; report this to the administrator", image->id);
    return 0;
}

/* A path of the upper layer lies in a directory that an earlier step made: no link can be on the way. */
static int make_upper_directory(const struct site *site, const struct plan_step *step, struct error *e)
{
    if (mkdirat(site->upper, step->target + 1, 0755) < 0)
        return error_set(e, errno, "cannot create %s for the container", step->target);
    return 0;
}

static int write_etc(const struct site *site, const struct plan_step *step, struct error *e)
{
    const struct plan_subject *s = site->subject;
    CLEANUP_CLOSE int etc = openat(site->upper, step->target + 1, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (etc < 0)
        return error_set(e, errno, "cannot open %s of the container's upper layer", step->target);
    return etcfiles_write(s->config, etc, s->account, s->caller, e);
}

static int write_file(const struct site *site, const struct plan_step *step, struct error *e)
{
    const char *name = step->target + 1;
    if (upper_write(site->upper, name, step->content, strlen(step->content), e) < 0)
        return -1;
    const struct caller *user = site->subject->caller;
    if (step->of_user && (fchmodat(site->upper, name, 0600, 0) < 0 ||
                          fchownat(site->upper, name, user->uid, user->gid, AT_SYMLINK_NOFOLLOW) < 0))
        return error_set(e, errno, "cannot make %s the user's own", step->target);
    return 0;
}

static int mount_overlay(struct site *site, struct error *e)
{
    /* Marks of overlayfs that an image may carry in its extended attributes must not redirect anything. Kernels
     * refuse words they do not know, so the list goes from new to old: 5.11, 4.19, and 4.15, for which metacopy is no
     * mark yet. */
    static const char *const options[] = {
        "lowerdir=image,upperdir=upper,workdir=work,userxattr,index=off",
        "lowerdir=image,upperdir=upper,workdir=work,redirect_dir=nofollow,metacopy=off,index=off",
        "lowerdir=image,upperdir=upper,workdir=work,redirect_dir=nofollow,index=off",
    };
    int result = -1;
    errno = EINVAL;
    for (size_t i = 0; i < sizeof options / sizeof options[0] && result < 0 && errno == EINVAL; i++)
        result = mount("shifter", "root", "overlay", MS_NOSUID | MS_NODEV, options[i]);
    if (result < 0)
        return error_set(e, errno,
                         "cannot mount the overlay of image and own files (is the kernel module overlay loaded?)");
    if ((site->root = open("root", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
        return error_set(e, errno, "cannot open the container's root");
    container_end(&site->container);
    site->container = (struct container){.proc = site->proc, .root = site->root, .caller = site->subject->caller};
    return 0;
}

/* What is mounted here will be moved to where a hook sees it, which is the upper layer alone: the mount point must be
 * in that too. A change of mode, even to the same, makes overlayfs copy it there. */
static int keep_for_hooks(const struct site *site, int target, const char *name, struct error *e)
{
    struct stat st;
    if (site->hooks == 0 || mount_id(site->proc, target) != mount_id(site->proc, site->root))
        return 0;
    if (fstat(target, &st) < 0 || chmod(kernel_fd_path(target).text, st.st_mode & 07777) < 0)
        return error_set(e, errno, "cannot copy the mount point %s of the image into the upper layer", name);
    return 0;
}

/* What is to be shown, opened O_PATH. A cache is mounted at a place of ours first. */
static int open_source(const struct site *site, const struct plan_step *step, struct error *e)
{
    const struct plan_subject *s = site->subject;
    if (step->trusted)
        return trust_open(step->source, 0, "root", true, step->reason, e);
    if (step->kind == PLAN_VOLUME)
        return container_open_source(&site->container, step->source, e);
    if (step->kind == PLAN_CACHE && mkdir("cache", 0700) < 0 && errno != EEXIST)
        return error_set(e, errno, "cannot make a first place for the cache at %s", step->target);
    if (step->kind == PLAN_CACHE && nodecache_mount(s->config, s->caller, step->size, "cache", e) < 0)
        return -1;
    int fd = open(step->kind == PLAN_CACHE ? "cache" : step->source, O_PATH | O_CLOEXEC);
    if (fd < 0 && !(errno == ENOENT && step->optional))
        (void)error_set(e, errno, "cannot open %s, which is to appear at %s (%s)", step->source, step->target,
                        step->reason);
    return fd;
}

static int bind_step(struct site *site, const struct plan_step *step, struct error *e)
{
    struct container *container = &site->container;
    struct stat st;
    e->text[0] = '\0';
    CLEANUP_CLOSE int source = open_source(site, step, e);
    if (source < 0)
        return e->text[0] == '\0' ? 0 : -1; /* optional, and not there */
    if (fstat(source, &st) < 0)
        return error_set(e, errno, "cannot examine %s (%s)", step->source, step->reason);
    container->exact = site->hooks > 0 && S_ISDIR(st.st_mode);
    CLEANUP_CLOSE int target = container_open_target(container, step->target, S_ISDIR(st.st_mode), step->origin, e);
    if (target < 0 || keep_for_hooks(site, target, step->target, e) < 0)
        return -1;
    struct bind bind = {.source = source,
                        .stage = site->scratch,
                        .target = target,
                        .name = step->target,
                        .attributes = step->attributes,
                        .recursive = step->recursive,
                        .propagation = step->propagation};
    unsigned long id, *wanted = step->origin == VOLUME_OF_USER ? &id : NULL;
    if (mount_bind(site->proc, &bind, wanted, e) < 0)
        return -1;
    if (step->kind == PLAN_CACHE && umount2("cache", MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
        return error_set(e, errno, "cannot unmount the first place of the cache at %s", step->target);
    if (wanted != NULL) {
        container->own.ids = text_grow(container->own.ids, container->own.count + 1, sizeof *container->own.ids);
        container->own.ids[container->own.count++] = id;
    }
    return 0;
}

/* A directory of the host has no places for what will be mounted within, so it is shown entry by entry. "modules" is
 * the one entry that will have something in between itself. */
static int bind_entries(struct site *site, const struct plan_step *step, struct error *e)
{
    CLEANUP_CLOSE int trusted = trust_open(step->source, 0, "root", true, step->reason, e);
    if (trusted < 0)
        return -1;
    int directory = openat(trusted, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = directory < 0 ? NULL : fdopendir(directory);
    if (listing == NULL)
        return error_set(e, errno, "cannot list %s (%s)", step->source, step->reason);
    int result = 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(listing)) != NULL;) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        CLEANUP_FREE char *source = text_format("%s/%s", step->source, name);
        CLEANUP_FREE char *target = text_format("%s/%s", step->target, name);
        struct plan_step part = *step;
        part.source = source;
        part.target = target;
        part.split = false;
        bool between = step->split && strcmp(name, "modules") == 0;
        result = between ? bind_entries(site, &part, e) : bind_step(site, &part, e);
    }
    (void)closedir(listing);
    return result;
}

/* A hook works at udiMount, where it finds the site's files and mounts, and what it makes there becomes part of the
 * container. The image is not in sight: a link of its author could lead root anywhere on the node. So the overlay,
 * whose upper layer must not be changed beneath it, is taken away for that time, and the mounts change over. */
static int run_hook(struct site *site, const struct plan_step *step, struct error *e)
{
    const char *const program[] = {step->source, NULL};
    if (mount("upper", ".", NULL, MS_BIND, NULL) < 0)
        return error_set(e, errno, "cannot make the directory that %s works in", step->reason);
    CLEANUP_CLOSE int view = kernel_open_no_symlinks(site->subject->config->udi_mount);
    if (view < 0)
        return error_set(e, errno, "cannot open the directory that %s works in", step->reason);
    if (mounts_move(site->proc, site->root, view, e) < 0)
        return -1;
    (void)close(site->root);
    site->root = -1;
    site->hooks--;
    if (umount2("root", UMOUNT_NOFOLLOW) < 0)
        return error_set(e, errno, "cannot take the overlay away before %s", step->reason);
    if (hook_run(step->reason, program, view, 0, HOOK_SECONDS, e) < 0 || mount_overlay(site, e) < 0 ||
        mounts_move(site->proc, view, site->root, e) < 0)
        return -1;
    return umount2(kernel_fd_path(view).text, MNT_DETACH) == 0
               ? 0
               : error_set(e, errno, "cannot take the directory away that %s worked in", step->reason);
}

static int make_read_only(const struct site *site, struct error *e)
{
    if (kernel_change_mount(site->root, false, MOUNT_READ_ONLY | MOUNT_NO_SUID | MOUNT_NO_DEVICES,
                            PROPAGATE_UNCHANGED) == 0)
        return 0;
    if (errno == ENOSYS && mount(NULL, kernel_fd_path(site->root).text, NULL,
                                 MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) == 0)
        return 0;
    return error_set(e, errno, "cannot make the container's root read-only");
}

static int execute_step(struct site *site, const struct plan_step *step, struct error *e)
{
    switch (step->kind) {
    case PLAN_SCRATCH: return make_scratch(site, step, e);
    case PLAN_IMAGE: return mount_image(site, e);
    case PLAN_DIRECTORY: return make_upper_directory(site, step, e);
    case PLAN_ETC: return write_etc(site, step, e);
    case PLAN_FILE: return write_file(site, step, e);
    case PLAN_ROOT: return mount_overlay(site, e);
    case PLAN_BIND:
    case PLAN_VOLUME:
    case PLAN_CACHE: return step->split ? bind_entries(site, step, e) : bind_step(site, step, e);
    case PLAN_HOOK: return run_hook(site, step, e);
    case PLAN_LOCAL: return image_local_merge(&site->container, site->scratch, site->local, e);
    case PLAN_READ_ONLY: return make_read_only(site, e);
    }
    return error_set(e, 0, "unknown plan step %d", (int)step->kind);
}

int rootfs_build(const struct plan *plan, const struct plan_subject *subject, int proc, struct error *e)
{
    if (unshare(CLONE_NEWNS) < 0)
        return error_set(e, errno, "cannot make a mount namespace (limit: sysctl user.max_mnt_namespaces)");
    /* Slave: mounts of the host may still arrive, for siteFs with the flag slave; nothing of ours goes out. */
    if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
        return error_set(e, errno, "cannot cut the mount namespace off from the host's");
    struct site site = {.subject = subject, .proc = proc, .scratch = -1, .upper = -1, .root = -1, .local = -1};
    int result = 0;
    /* Now, while nothing of ours is mounted that its path could lead to. */
    if (subject->image->file_fd < 0 && (site.local = image_local_top(subject->caller, subject->image->id, e)) < 0)
        result = -1;
    for (size_t i = 0; i < plan->count; i++)
        site.hooks += plan->steps[i].kind == PLAN_HOOK;
    for (size_t i = 0; i < plan->count && result == 0; i++)
        result = execute_step(&site, &plan->steps[i], e);
    if (result == 0 && kernel_enter_root(site.root) < 0)
        result = error_set(e, errno, "cannot make the container the root of its namespace");
    container_end(&site.container);
    const int fds[] = {site.scratch, site.upper, site.root, site.local};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
    return result < 0 ? -1 : mounts_verify(proc, plan, e);
}
