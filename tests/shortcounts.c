/* SPDX-License-Identifier: BSD-3-Clause */
/* A library for LD_PRELOAD with which reads and writes do less than they are asked to, as POSIX lets them, or are
 * interrupted before they do anything. Environment: SHORT_SEED a number that decides which; SHORT_REPORT a file that
 * gets the number of calls that were cut at the end of the process. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <unistd.h>

static atomic_ulong calls, cut;
static uint64_t seed;

/* 0: the call is interrupted; otherwise how much of `size` it may do. One in four calls does what it should. */
static size_t allowed(size_t size)
{
    uint64_t x = seed + atomic_fetch_add(&calls, 1) * 0x9e3779b97f4a7c15u; /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    if (size == 0 || x % 4 == 0)
        return size;
    atomic_fetch_add(&cut, 1);
    if (x % 4 == 1) {
        errno = EINTR;
        return 0;
    }
    return 1 + (x >> 8) % size;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CUT(name, size, ...) \
    do { \
        size_t given = allowed(size); \
        return given == 0 && (size) > 0 ? -1 : NEXT(name)(__VA_ARGS__); \
    } while (0)

ssize_t read(int fd, void *buffer, size_t size)
{
    CUT(read, size, fd, buffer, given);
}

ssize_t pread(int fd, void *buffer, size_t size, off_t offset)
{
    CUT(pread, size, fd, buffer, given, offset);
}

ssize_t pread64(int fd, void *buffer, size_t size, off64_t offset)
{
    CUT(pread64, size, fd, buffer, given, offset);
}

ssize_t write(int fd, const void *buffer, size_t size)
{
    CUT(write, size, fd, buffer, given);
}

ssize_t pwrite(int fd, const void *buffer, size_t size, off_t offset)
{
    CUT(pwrite, size, fd, buffer, given, offset);
}

ssize_t pwrite64(int fd, const void *buffer, size_t size, off64_t offset)
{
    CUT(pwrite64, size, fd, buffer, given, offset);
}

ssize_t copy_file_range(int in, off64_t *in_offset, int out, off64_t *out_offset, size_t size, unsigned flags)
{
    CUT(copy_file_range, size, in, in_offset, out, out_offset, given, flags);
}

ssize_t sendfile(int out, int in, off_t *offset, size_t size)
{
    CUT(sendfile, size, out, in, offset, given);
}

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("SHORT_SEED");
    seed = text == NULL ? 0 : strtoull(text, NULL, 10);
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("SHORT_REPORT");
    FILE *report = path == NULL ? NULL : fopen(path, "we");
    if (report == NULL)
        return;
    fprintf(report, "%lu\n", atomic_load(&cut));
    (void)fclose(report);
}
