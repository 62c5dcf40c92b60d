/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The floor of tests/bench/start: the least that a private start on a squashfs image can do, without a single check. Run
 * as root: floor IMAGE ROOT COMMAND [ARGUMENT...]; ROOT is an empty directory. One loop device, squashfs, a small tmpfs
 * as overlay upper, /proc, /dev, pivot_root, exec. Never install this: it trusts everybody.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void check(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(125);
    }
}

static void attach(const char *image, char *device, size_t size)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    check(control, "/dev/loop-control");
    int backing = open(image, O_RDONLY | O_CLOEXEC);
    check(backing, image);
    for (int tries = 0; tries < 4096; tries++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        check(number, "LOOP_CTL_GET_FREE");
        (void)snprintf(device, size, "/dev/loop%d", number);
        int loop = open(device, O_RDONLY | O_CLOEXEC);
        struct loop_config config = {.fd = (unsigned)backing};
        config.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
        if (loop >= 0 && ioctl(loop, LOOP_CONFIGURE, &config) == 0)
            return; /* `loop` stays open until exec: the mount needs the device */
        if (loop >= 0)
            (void)close(loop);
    }
    check(-1, "LOOP_CONFIGURE");
}

int main(int argc, char **argv)
{
    char device[32];
    if (argc < 4)
        return 125;
    check(unshare(CLONE_NEWNS), "unshare");
    check(mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL), "slave");
    attach(argv[1], device, sizeof device);
    check(mount("tmpfs", argv[2], "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=0755"), "tmpfs");
    check(chdir(argv[2]), argv[2]);
    check(mkdir("lower", 0755) | mkdir("upper", 0755) | mkdir("work", 0755) | mkdir("root", 0755), "mkdir");
    check(mount(device, "lower", "squashfs", MS_RDONLY | MS_NOSUID | MS_NODEV, NULL), "squashfs");
    check(mount("overlay", "root", "overlay", MS_NOSUID | MS_NODEV, "lowerdir=lower,upperdir=upper,workdir=work"), "overlay");
    check(mount("/dev", "root/dev", NULL, MS_BIND | MS_REC, NULL), "dev");
    check(mount("proc", "root/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), "proc");
    check(chdir("root"), "root");
    check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    check(umount2(".", MNT_DETACH), "umount");
    check(setgid(65534) | setuid(65534), "setuid");
    (void)execv(argv[3], argv + 3);
    perror(argv[3]);
    return 127;
}
