/* SPDX-License-Identifier: BSD-3-Clause */
#include "tar_mutator.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 512, MAX_ENTRIES = 256 };

/* POSIX.1-2017, pax, "ustar Interchange Format". */
struct field {
    size_t offset, size;
};
static const struct field name = {0, 100}, mode = {100, 8}, uid = {108, 8}, gid = {116, 8}, length = {124, 12},
                          mtime = {136, 12}, checksum = {148, 8}, type = {156, 1}, linkname = {157, 100},
                          magic = {257, 8}, prefix = {345, 155};

static const char *const paths[] = {
    "a", "a/b", "a/b/c", "b", "b/a", "./a", "/a", "a/", "a//b", "a/./b", "a/../b", "..", ".", "", "bin", "bin/sh", "lib",
    "usr/lib/libc.so.6", "usr/bin", ".wh.a", "a/.wh.b", ".wh..wh..opq", "a/.wh..wh..opq", ".wh..wh.plnk", ".wh.", "a.b",
    "\xff\xc3\xa4", "a/b/c/d/e/f/g/h", "PaxHeaders/x", "././@LongLink"};
static const char types[] = "00000111122223455566xxgLKSNDVA7\0";
static const char *const numbers[] = {"0", "1", "1000", "7777", "1000000", "17777777777", "77777777777", "-1", " 12 ",
                                      "\x80\0\0\0\0\0\0\1\0\0\0\0", "\xff\xff\xff\xff\xff\xff\xff\xff"};
static const char *const keys[] = {
    "path", "linkpath", "size", "mtime", "uid", "gid", "uname", "hdrcharset", "SCHILY.xattr.user.a",
    "SCHILY.xattr.user.b", "SCHILY.xattr.user.shifter.x", "SCHILY.xattr.trusted.overlay.opaque",
    "LIBARCHIVE.xattr.user.c", "SCHILY.acl.access", "SCHILY.fflags", "SCHILY.dev", "SCHILY.realsize",
    "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "GNU.sparse.realsize", "GNU.sparse.size",
    "GNU.sparse.offset", "GNU.sparse.numbytes", "GNU.sparse.numblocks", "GNU.sparse.map", "LIBARCHIVE.creationtime",
    "LIBARCHIVE.symlinktype", "RHT.security.selinux", "comment"};
static const char *const values[] = {
    "", "0", "1", "2", "12", "512", "4096", "100000", "4294967296", "9223372036854775807", "-1", "1.5", "a", "a/b",
    "../a", "/a", "BINARY", "ISO-IR 10646 2000 UTF-8", "0,1,1,1", "0,4096,8192,10", "dGVzdA", "\xff\xfe", "a\nb",
    "user::rwx,group::r-x,other::r-x"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

__attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

struct tar {
    uint8_t *data;
    size_t size, room;
    size_t starts[MAX_ENTRIES + 1]; /* of entries: their headers; the last is where they end */
    size_t count;
    uint32_t state;
};

static uint32_t pick(struct tar *t, size_t limit)
{
    t->state ^= t->state << 13;
    t->state ^= t->state >> 17;
    t->state ^= t->state << 5;
    return limit > 0 ? (uint32_t)(t->state % limit) : 0;
}

size_t mutate_bytes(uint8_t *data, size_t size, size_t room)
{
    return LLVMFuzzerMutate != NULL ? LLVMFuzzerMutate(data, size, room) : size;
}

static uint64_t number_of(const uint8_t *text, size_t size)
{
    uint64_t value = 0;
    for (size_t i = 0; i < size && text[i] >= '0' && text[i] <= '7'; i++)
        value = value << 3 | (uint64_t)(text[i] - '0');
    return value;
}

static void fix_checksum(uint8_t *header)
{
    unsigned sum = 0;
    memset(header + checksum.offset, ' ', checksum.size);
    for (size_t i = 0; i < BLOCK; i++)
        sum += header[i];
    char text[8];
    (void)snprintf(text, sizeof text, "%06o", sum);
    memcpy(header + checksum.offset, text, 7);
}

/* Finds the entries as a reader of tar does; what cannot be one ends the search. */
static void find_entries(struct tar *t)
{
    size_t at = 0;
    t->count = 0;
    while (t->count < MAX_ENTRIES && t->size - at >= BLOCK && memcmp(t->data + at + magic.offset, "ustar", 5) == 0) {
        t->starts[t->count++] = at;
        uint64_t content = number_of(t->data + at + length.offset, length.size - 1);
        size_t left = t->size - at - BLOCK;
        uint64_t padded = (content + BLOCK - 1) / BLOCK * BLOCK;
        at += BLOCK + (padded < left ? (size_t)padded : left);
    }
    t->starts[t->count] = at;
}

/* Makes room for `size` bytes at `at`, taking away `old` bytes. */
static bool resize(struct tar *t, size_t at, size_t old, size_t size)
{
    if (t->size - old + size > t->room)
        return false;
    memmove(t->data + at + size, t->data + at + old, t->size - at - old);
    t->size = t->size - old + size;
    return true;
}

static void put(uint8_t *header, const struct field *field, const char *text)
{
    memset(header + field->offset, 0, field->size);
    size_t size = strlen(text);
    memcpy(header + field->offset, text, size < field->size ? size : field->size);
}

static void put_octal(uint8_t *header, const struct field *field, unsigned value)
{
    char text[16];
    (void)snprintf(text, sizeof text, "%0*o", (int)field->size - 1, value);
    put(header, field, text);
}

static void start_header(uint8_t *header, char kind, const char *path, unsigned size)
{
    memset(header, 0, BLOCK);
    put(header, &name, path);
    put_octal(header, &mode, 0755);
    put_octal(header, &uid, 0);
    put_octal(header, &gid, 0);
    put_octal(header, &length, size);
    put_octal(header, &mtime, 1);
    header[type.offset] = (uint8_t)kind;
    memcpy(header + magic.offset, "ustar\00000", 8);
}

/* --- one change of each kind -------------------------------------------------------------------------------------- */

static void insert_entry(struct tar *t, size_t at)
{
    static const unsigned sizes[] = {0, 1, 100, 512, 4096, 4097};
    char kind = types[pick(t, sizeof types - 1)];
    unsigned size = kind == '0' || pick(t, 8) == 0 ? sizes[pick(t, COUNT(sizes))] : 0;
    size_t padded = (size + BLOCK - 1) / BLOCK * BLOCK;
    if (!resize(t, at, 0, BLOCK + padded))
        return;
    start_header(t->data + at, kind, paths[pick(t, COUNT(paths))], size);
    put(t->data + at, &linkname, paths[pick(t, COUNT(paths))]);
    memset(t->data + at + BLOCK, (int)pick(t, 4), padded);
    fix_checksum(t->data + at);
}

/* "length key=value\n" of POSIX.1-2017, pax, "pax Extended Header"; the length counts itself. */
static int record(char *text, size_t room, const char *key, const char *value)
{
    int rest = (int)(strlen(key) + strlen(value)) + 3;
    int total = rest + 1;
    total = rest + (total < 10 ? 1 : total < 99 ? 2 : 3);
    return snprintf(text, room, "%d %s=%s\n", total, key, value);
}

static void insert_pax(struct tar *t, size_t at)
{
    char text[BLOCK] = {0};
    int size = 0;
    for (unsigned left = 1 + pick(t, 4); left > 0; left--)
        size += record(text + size, sizeof text - (size_t)size, keys[pick(t, COUNT(keys))], values[pick(t, COUNT(values))]);
    if (!resize(t, at, 0, 2 * BLOCK))
        return;
    start_header(t->data + at, pick(t, 8) == 0 ? 'g' : 'x', "PaxHeaders/x", (unsigned)size);
    memcpy(t->data + at + BLOCK, text, BLOCK);
    fix_checksum(t->data + at);
}

static void change_field(struct tar *t, uint8_t *header)
{
    const struct field *const texts[] = {&name, &name, &linkname, &linkname, &prefix};
    const struct field *const figures[] = {&mode, &uid, &gid, &length, &length, &mtime};
    const uint8_t *other = t->data + t->starts[pick(t, t->count)];
    const struct field *field = texts[pick(t, COUNT(texts))];
    switch (pick(t, 6)) {
    case 0: put(header, field, paths[pick(t, COUNT(paths))]); break;
    case 1: put(header, figures[pick(t, COUNT(figures))], numbers[pick(t, COUNT(numbers))]); break;
    case 2: header[type.offset] = (uint8_t)types[pick(t, sizeof types - 1)]; break;
    case 3: memmove(header + field->offset, other + (pick(t, 2) == 0 ? name : linkname).offset, 100); break;
    case 4: memcpy(header + magic.offset, pick(t, 2) == 0 ? "ustar  " : "ustar\00000", 8); break;
    default: (void)mutate_bytes(header + field->offset, field->size, field->size);
    }
}

/* Moves, doubles or removes a run of entries. */
static void rearrange(struct tar *t)
{
    size_t from = pick(t, t->count), to = from + 1 + pick(t, t->count - from > 3 ? 3 : t->count - from);
    to = to > t->count ? t->count : to;
    size_t start = t->starts[from], size = t->starts[to] - start;
    size_t target = t->starts[pick(t, t->count + 1)];
    uint8_t *copy = malloc(size);
    if (copy == NULL)
        return;
    memcpy(copy, t->data + start, size);
    unsigned way = pick(t, 3);
    if (way != 0) { /* remove */
        (void)resize(t, start, size, 0);
        target -= target >= start + size ? size : target > start ? target - start : 0;
    }
    if (way != 1 && resize(t, target, 0, size))
        memcpy(t->data + target, copy, size);
    free(copy);
}

/* Anything within the contents of an entry: pax records, sparse maps, long names. */
static void change_content(struct tar *t, size_t entry)
{
    size_t start = t->starts[entry] + BLOCK, size = t->starts[entry + 1] - start;
    if (size > 0)
        (void)mutate_bytes(t->data + start, size, size);
}

static void change(struct tar *t)
{
    size_t entry = pick(t, t->count);
    size_t start = t->starts[entry];
    switch (pick(t, 8)) {
    case 0: insert_entry(t, t->starts[pick(t, t->count + 1)]); break;
    case 1: insert_pax(t, start); break;
    case 2: rearrange(t); break;
    case 3: change_content(t, entry); break;
    case 4: (void)mutate_bytes(t->data + start, BLOCK, BLOCK); break;
    default: change_field(t, t->data + start);
    }
}

size_t mutate_tar(uint8_t *data, size_t size, size_t room, unsigned seed)
{
    struct tar t = {.data = data, .size = size, .room = room, .state = seed | 1};
    find_entries(&t);
    if (t.count == 0 && pick(&t, 2) == 0)
        return mutate_bytes(data, size, room);
    if (t.count == 0)
        insert_entry(&t, 0);
    for (unsigned left = 1 + pick(&t, 3); left > 0 && t.count > 0; left--) {
        find_entries(&t);
        if (t.count > 0)
            change(&t);
    }
    find_entries(&t);
    if (pick(&t, 32) != 0)
        for (size_t i = 0; i < t.count; i++)
            fix_checksum(data + t.starts[i]);
    return t.size;
}
