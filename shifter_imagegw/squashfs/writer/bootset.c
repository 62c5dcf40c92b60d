/* SPDX-License-Identifier: BSD-3-Clause */
#include "bootset.h"

#include <fnmatch.h>
#include <string.h>

/* ELF interpreters (`ld-2.31.so` is what the others were links to before glibc 2.34), C libraries, the one that bash
 * needs beside them, shells. `[` is the first name, and so the file, in images of busybox: all others are hard links. */
static const char *const names[] = {"ld-linux*", "ld-musl-*", "ld64.so*", "ld-*.so", "libc.so*", "libc-*.so",
                                    "libtinfo.so*", "sh", "dash", "bash", "ash", "busybox", "\\[", NULL};

/* `*-linux-*`: multiarch directories of Debian. */
static const char *const directories[] = {"bin", "sbin", "usr/bin", "usr/sbin", "lib", "lib64", "usr/lib", "usr/lib64",
                                          "lib/*-linux-*", "usr/lib/*-linux-*", NULL};

static bool matches_any(const char *const *patterns, const char *text)
{
    for (; *patterns != NULL; patterns++) {
        bool may = **patterns == *text || **patterns == '\\'; /* asked for every file, and none starts with a `*` */
        if (may && fnmatch(*patterns, text, FNM_PATHNAME) == 0)
            return true;
    }
    return false;
}

bool bootset_has(const char *directory, size_t directory_size, const char *name, uint64_t size)
{
    char text[64]; /* longer than any of them */
    if (size > BOOTSET_MAX_BYTES || directory_size >= sizeof text || !matches_any(names, name))
        return false;
    memcpy(text, directory, directory_size);
    text[directory_size] = '\0';
    return matches_any(directories, text);
}
