/* SPDX-License-Identifier: BSD-3-Clause */
#include "as_root/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <linux/loop.h>

#include "base/file.h"
#include "base/text.h"

#ifndef LOOP_CONFIGURE
#define LOOP_CONFIGURE 0x4C0A
struct loop_config {
    __u32 fd, block_size;
    struct loop_info64 info;
    __u64 reserved[8];
};
#endif

enum { LOOP_MAJOR_NUMBER = 7, TRIES = 100, PARTITIONS_LIMIT = 4 << 20 };
static const unsigned wanted_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR; /* of an image's */

static void short_pause(void)
{
    struct timespec ten_milliseconds = {.tv_nsec = 10000000};
    (void)nanosleep(&ten_milliseconds, NULL);
}

/* The name the kernel keeps for a device: the image's id, as far as it fits. Inode numbers alone are not unique on
 * every network file system. */
static void set_name(struct loop_info64 *info, const char *name)
{
    (void)snprintf((char *)info->lo_file_name, sizeof info->lo_file_name, "%s", name);
}

/* Does the device behind `fd` show exactly the whole file described by `image`, read-only, and vanish with its last
 * user? One that a process of ours has left without flags and name, killed between the two steps below, is finished: no
 * other program leaves the name empty. */
static bool shows_image(int fd, const struct stat *image, const char *name)
{
    struct loop_info64 info, own = {.lo_flags = wanted_flags};
    set_name(&own, name);
    if (ioctl(fd, LOOP_GET_STATUS64, &info) < 0 || info.lo_device != (__u64)image->st_dev ||
        info.lo_inode != (__u64)image->st_ino || info.lo_offset != 0 || info.lo_sizelimit != 0)
        return false;
    if (info.lo_flags == LO_FLAGS_READ_ONLY && info.lo_file_name[0] == '\0')
        return ioctl(fd, LOOP_SET_STATUS64, &own) == 0;
    return (info.lo_flags & wanted_flags) == wanted_flags &&
           memcmp(info.lo_file_name, own.lo_file_name, sizeof own.lo_file_name) == 0;
}

static bool has_name(int fd, const char *name)
{
    struct loop_info64 info, own;
    set_name(&own, name);
    return ioctl(fd, LOOP_GET_STATUS64, &info) == 0 &&
           strncmp((char *)info.lo_file_name, (char *)own.lo_file_name, sizeof own.lo_file_name) == 0;
}

/* Opens /dev/loopN and makes sure that it is loop device N and nothing else. */
static int open_device(unsigned number, int mode, struct loop *out)
{
    (void)snprintf(out->device, sizeof out->device, "/dev/loop%u", number);
    out->fd = open(out->device, mode | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (out->fd < 0)
        return -1;
    struct stat st;
    if (fstat(out->fd, &st) == 0 && S_ISBLK(st.st_mode) && major(st.st_rdev) == LOOP_MAJOR_NUMBER)
        return 0;
    (void)close(out->fd);
    out->fd = -1;
    errno = ENXIO;
    return -1;
}

/* /proc/partitions lists the block devices that have a size, so only configured loop devices, however many nodes /dev
 * holds; and of those only the ones of the image's size are worth opening. Returns 1 when found, 0 when not, -1 on
 * error. With `usage`, and no image: adds up those of the name. */
static int find_device(const struct stat *image, const char *name, struct loop *out, struct loop_usage *usage,
                       struct error *e)
{
    size_t length;
    CLEANUP_CLOSE int fd = open("/proc/partitions", O_RDONLY | O_CLOEXEC);
    CLEANUP_FREE char *text = fd < 0 ? NULL : file_read(fd, 0, PARTITIONS_LIMIT, &length);
    if (text == NULL)
        return error_set(e, errno, "cannot read /proc/partitions to find loop devices");
    int found = 0;
    for (char *next = text, *line; found == 0 && (line = strsep(&next, "\n")) != NULL;) {
        unsigned device_major, device_minor;
        unsigned long long kibibytes;
        if (sscanf(line, "%u %u %llu", &device_major, &device_minor, &kibibytes) != 3 ||
            device_major != LOOP_MAJOR_NUMBER ||
            (image != NULL && kibibytes != (unsigned long long)image->st_size / 1024) ||
            open_device(device_minor, O_RDONLY, out) < 0)
            continue;
        found = image != NULL && shows_image(out->fd, image, name);
        if (usage != NULL && has_name(out->fd, name)) {
            usage->count++;
            usage->kibibytes += kibibytes;
        }
        if (found == 0)
            (void)close(out->fd);
    }
    return found;
}

int loop_usage(const char *name, struct loop_usage *usage, struct error *e)
{
    struct loop device;
    *usage = (struct loop_usage){0};
    return find_device(NULL, name, &device, usage, e);
}

/* LOOP_SET_FD and LOOP_SET_STATUS64 of kernels before 5.8. Killed between them, the device would stay until the image
 * is started again, that of a cache for ever: so the real uid is root's meanwhile, and the caller may not send
 * signals (kill(2)). */
static int configure_in_two_steps(int device, int image_fd, const struct loop_info64 *info)
{
    uid_t caller = getuid();
    if (setresuid(0, 0, 0) < 0)
        return -1;
    int result = ioctl(device, LOOP_SET_FD, image_fd);
    int saved = errno;
    if (result == 0 && (result = ioctl(device, LOOP_SET_STATUS64, info)) < 0) {
        saved = errno;
        (void)ioctl(device, LOOP_CLR_FD, 0);
    }
    if (setresuid(caller, 0, 0) < 0)
        return -1;
    errno = saved;
    return result;
}

static int configure(int device, int image_fd, bool writable, const char *name)
{
    struct loop_config config = {.fd = (__u32)image_fd,
                                 .info = {.lo_flags = writable ? LO_FLAGS_AUTOCLEAR : wanted_flags}};
    set_name(&config.info, name);
    if (ioctl(device, LOOP_CONFIGURE, &config) == 0)
        return 0;
    bool old = errno == EINVAL || errno == ENOTTY || errno == ENOSYS;
    return old ? configure_in_two_steps(device, image_fd, &config.info) : -1;
}

static int new_device(int control, int image_fd, bool writable, const char *name, struct loop *out, struct error *e)
{
    const char *kind = writable ? "" : "image ";
    for (int try = 0; try < TRIES; try++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            return error_set(e, errno,
                             "no free loop device for %s%s; raise max_loop of the loop module or end other "
                             "users of loop devices (losetup -l)",
                             kind, name);
        if (open_device((unsigned)number, writable ? O_RDWR : O_RDONLY, out) < 0) {
            if (errno != ENOENT && errno != ENXIO)
                return error_set(e, errno, "cannot open %s for %s%s", out->device, kind, name);
            short_pause(); /* udev or devtmpfs is about to make the node */
            continue;
        }
        if (configure(out->fd, image_fd, writable, name) == 0)
            return 0;
        int saved = errno;
        (void)close(out->fd);
        out->fd = -1;
        if (saved != EBUSY) /* EBUSY: another program took the device between the two calls */
            return error_set(e, saved, "cannot attach %s%s to %s", kind, name, out->device);
    }
    return error_set(e, 0, "cannot get a loop device for %s%s: %s never became usable; does /dev hold the node?",
                     kind, name, out->device);
}

/* Under the node's lock, so that ranks that start together end up with one device. A lock on the control device is
 * seen by this node only, unlike one on the image, whose file system may be the whole cluster's; users cannot open
 * it. But they can stop a process that holds it (kill(2): the real uid is theirs), so nobody waits for it longer than
 * a second: it only saves loop devices. */
static int find_or_make(int control, int image_fd, const struct stat *st, const char *name, struct loop *out,
                        struct error *e)
{
    int found = 0;
    for (int try = 0; try < TRIES && found == 0 && flock(control, LOCK_EX | LOCK_NB) < 0; try++) {
        short_pause();
        found = find_device(st, name, out, NULL, e);
    }
    if (found == 0)
        found = find_device(st, name, out, NULL, e);
    if (found == 0)
        found = new_device(control, image_fd, false, name, out, e);
    return found < 0 ? -1 : 0; /* the lock goes with the descriptor */
}

static int open_control(struct error *e)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    return control >= 0 ? control
                        : error_set(e, errno, "cannot open /dev/loop-control; is the kernel module `loop` loaded?");
}

int loop_attach_new(int file_fd, const char *name, struct loop *out, struct error *e)
{
    *out = (struct loop){.fd = -1};
    CLEANUP_CLOSE int control = open_control(e);
    return control < 0 ? -1 : new_device(control, file_fd, true, name, out, e);
}

int loop_attach(int image_fd, const struct stat *image, const char *name, struct loop *out, struct error *e)
{
    *out = (struct loop){.fd = -1};
    int found = find_device(image, name, out, NULL, e);
    if (found != 0)
        return found < 0 ? -1 : 0;
    CLEANUP_CLOSE int control = open_control(e);
    if (control < 0)
        return -1;
    if (find_or_make(control, image_fd, image, name, out, e) < 0)
        return -1;
    if (shows_image(out->fd, image, name))
        return 0;
    (void)close(out->fd);
    out->fd = -1;
    return error_set(e, 0, "%s does not show image %s although it was just attached; try again", out->device, name);
}
