/* SPDX-License-Identifier: BSD-3-Clause */
#include "engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "../../shifter_imagegw/squashfs/merger/merge.h"
#include "../../shifter_imagegw/squashfs/merger/view.h"

enum { TRAILER_SIZE = 96, PAGE = 4096 };

/* --- files -------------------------------------------------------------------------------------------------------- */

int scratch_existing(unsigned number)
{
    static int files[SCRATCH_FILES];
    if (number >= SCRATCH_FILES)
        bug("scratch file %u", number);
    if (files[number] == 0)
        files[number] = memfd_create("fuzz", MFD_CLOEXEC);
    if (files[number] < 0)
        bug("no file in memory: %s", strerror(errno));
    return files[number];
}

int scratch_file(unsigned number)
{
    int fd = scratch_existing(number);
    if (ftruncate(fd, 0) < 0)
        bug("a file in memory cannot be cut: %s", strerror(errno));
    return fd;
}

static void write_at(int fd, const void *data, size_t size, uint64_t offset)
{
    if (pwrite(fd, data, size, (off_t)offset) != (ssize_t)size)
        bug("a file in memory cannot be written: %s", strerror(errno));
}

int scratch_holding(unsigned number, const uint8_t *data, size_t size)
{
    int fd = scratch_file(number);
    write_at(fd, data, size, 0);
    return fd;
}

static uint64_t size_of(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        bug("fstat: %s", strerror(errno));
    return (uint64_t)status.st_size;
}

/* --- the writer --------------------------------------------------------------------------------------------------- */

/* Pieces are copies of their own, so that a sanitizer sees who reads past the end of one. */
static size_t give_pieces(struct feed *feed, const uint8_t *data, size_t size, unsigned seed, uint8_t **pieces)
{
    size_t count = 0;
    uint32_t state = seed;
    while (size > 0) {
        size_t part = size;
        state = state * 1103515245 + 12345;
        if (seed != 0 && count + 1 < FEED_PIECES) /* a ring full of them needs no second thread */
            part = (state >> 20 & 1) != 0 ? (state >> 8) % 9 : (state >> 8) % size;
        part = part < size ? part : size;
        uint8_t *copy = malloc(part > 0 ? part : 1);
        if (copy == NULL)
            bug("no memory");
        memcpy(copy, data, part);
        pieces[count++] = copy;
        (void)feed_give(feed, copy, part);
        data += part;
        size -= part;
    }
    feed_end(feed);
    return count;
}

/* The checksum that the layer cache finds damage with is that of what is in the file. */
static void expect_checksum(int fd, uint64_t end, const struct summary *summary)
{
    uint8_t buffer[PAGE], found[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    if (hash == NULL || EVP_DigestInit_ex(hash, EVP_sha256(), NULL) != 1)
        bug("no SHA-256");
    for (uint64_t at = TRAILER_SIZE; at < end;) {
        size_t part = end - at < sizeof buffer ? (size_t)(end - at) : sizeof buffer;
        if (pread(fd, buffer, part, (off_t)at) != (ssize_t)part)
            bug("the archive is shorter than its checksum says");
        (void)EVP_DigestUpdate(hash, buffer, part);
        at += part;
    }
    if (pread(fd, buffer, sizeof(sqfs_super_t), 0) != (ssize_t)sizeof(sqfs_super_t))
        bug("the archive has no superblock");
    (void)EVP_DigestUpdate(hash, buffer, sizeof(sqfs_super_t));
    (void)EVP_DigestFinal_ex(hash, found, NULL);
    EVP_MD_CTX_free(hash);
    if (memcmp(found, summary->checksum, sizeof summary->checksum) != 0)
        bug("the archive's checksum is not that of its bytes");
}

static void put_number(uint8_t *at, uint64_t value)
{
    for (unsigned i = 0; i < sizeof value; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

/* What shifter_imagegw/layers/trailer.py appends, but for the hashes, which the merge does not read. */
static void seal(int fd, const struct summary *summary)
{
    uint64_t end = size_of(fd);
    if (end < summary->bytes_out)
        bug("the archive is shorter than its summary says");
    if (end - summary->bytes_out != (uint64_t)summary->inodes * 16)
        bug("%llu bytes of digests for %u inodes", (unsigned long long)(end - summary->bytes_out), summary->inodes);
    expect_checksum(fd, end, summary);
    uint8_t trailer[TRAILER_SIZE] = "shifter layer 2\n";
    put_number(trailer + 16, summary->bytes_out);
    put_number(trailer + 24, end - summary->bytes_out);
    uint64_t padded = (end + TRAILER_SIZE + PAGE - 1) / PAGE * PAGE;
    write_at(fd, trailer, sizeof trailer, padded - TRAILER_SIZE);
}

bool convert_layer(const uint8_t *data, size_t size, unsigned pieces, const struct recipe *recipe,
                   const struct limits *limits, int fd)
{
    struct feed feed;
    struct summary summary;
    struct failure failure = {.kind = FAILURE_NONE};
    uint8_t *copies[FEED_PIECES];
    feed_init(&feed);
    size_t count = give_pieces(&feed, data, size, pieces, copies);
    int result = layer_convert(&feed, fd, recipe, limits, &summary, &failure);
    while (count > 0)
        free(copies[--count]);
    feed_destroy(&feed);
    if (result == 0 && failure.kind != FAILURE_NONE)
        bug("a success with the failure: %s", failure.reason);
    if (result < 0 && failure.kind != FAILURE_LAYER && failure.kind != FAILURE_LIMIT)
        bug("not the layer's fault: kind %d: %s", failure.kind, failure.reason);
    if (result < 0 && failure.reason[0] == '\0')
        bug("a failure without a reason");
    failure_clear(&failure);
    if (result == 0)
        seal(fd, &summary);
    return result == 0;
}

/* --- the merger --------------------------------------------------------------------------------------------------- */

static int go_on(void *context)
{
    (void)context;
    return 0;
}

static void expect_refusal(const struct error *e)
{
    if (e->kind != ERROR_DAMAGED && e->kind != ERROR_ENTRY)
        bug("not the archive's fault: kind %d: %s", (int)e->kind, e->text);
    if (e->text[0] == '\0')
        bug("an error without a reason");
}

bool merge_layers(const int *fds, size_t count, bool sound, int fd)
{
    struct control control = {.check = go_on};
    struct error e = {.kind = ERROR_NONE};
    struct image_summary summary;
    if (merge(fds, count, fd, &control, &summary, &e) == 0) {
        if (summary.bytes != size_of(fd) || summary.bytes % PAGE != 0)
            bug("an image of %llu bytes, in its summary %llu", (unsigned long long)size_of(fd),
                (unsigned long long)summary.bytes);
        return true;
    }
    expect_refusal(&e);
    if (sound && e.kind != ERROR_ENTRY)
        bug("the merge refuses what the writer made: %s", e.text);
    return false;
}

static int touch_xattr(void *context, const struct xattr *x, struct error *e)
{
    uint64_t *sum = context;
    (void)e;
    for (size_t i = 0; i < x->size; i++)
        *sum += x->value[i];
    *sum += strlen(x->name);
    return 0;
}

static volatile uint64_t seen; /* else the compiler would leave all of it out */

/* Goes where module.c goes to make tuples of entries. */
static void touch_entries(struct view *v)
{
    uint64_t sum = 0;
    struct error e = {.kind = ERROR_NONE};
    for (size_t i = 0; i < v->tree.inode_count; i++) {
        const struct inode *inode = &v->tree.inodes[i];
        sum += v->archive.ids[inode->uid_index] + (uint64_t)v->archive.ids[inode->gid_index];
        for (uint32_t at = 0; inode->type == INODE_SYMLINK && at < inode->content.symlink.length; at++)
            sum += v->tree.names[inode->content.symlink.target + at];
        if (inode->xattrs != TREE_NONE && archive_visit_xattrs(&v->archive, inode->xattrs, touch_xattr, &sum, &e) < 0)
            expect_refusal(&e);
    }
    seen = sum;
}

bool examine_image(int fd)
{
    struct control control = {.check = go_on};
    struct error e = {.kind = ERROR_NONE};
    struct view *v = view_read(fd, &control, &e);
    if (v == NULL) {
        expect_refusal(&e);
        return false;
    }
    touch_entries(v);
    view_close(v);
    return true;
}

void expect_sound(int fd, const char *what)
{
    struct control control = {.check = go_on};
    struct error e = {.kind = ERROR_NONE};
    struct view *v = view_read(fd, &control, &e);
    if (v == NULL)
        bug("%s %s", what, e.text);
    view_close(v);
}
