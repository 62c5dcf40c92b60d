/* SPDX-License-Identifier: BSD-3-Clause */
#include "output.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <sqfs/error.h>

struct output {
    sqfs_file_t file; /* first: libsquashfs sees only this */
    int fd;
    int errnum; /* of the last failed write: libsquashfs says no more than that there was one */
    uint64_t size;
    EVP_MD_CTX *hash;
};

static int write_fully(struct output *output, uint64_t offset, const void *data, size_t size)
{
    const char *bytes = data;
    while (size > 0) {
        ssize_t done = pwrite(output->fd, bytes, size, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            output->errnum = done < 0 ? errno : ENOSPC;
            return SQFS_ERROR_IO;
        }
        bytes += done;
        offset += (uint64_t)done;
        size -= (size_t)done;
    }
    return 0;
}

static int output_write_at(sqfs_file_t *file, sqfs_u64 offset, const void *data, size_t size)
{
    struct output *output = (struct output *)file;
    if (offset != output->size)
        return SQFS_ERROR_SEQUENCE;
    int result = write_fully(output, offset, data, size);
    if (result != 0)
        return result;
    output->size += size;
    return EVP_DigestUpdate(output->hash, data, size) == 1 ? 0 : SQFS_ERROR_INTERNAL;
}

static int output_read_at(sqfs_file_t *file, sqfs_u64 offset, void *buffer, size_t size)
{
    (void)file;
    (void)offset;
    (void)buffer;
    (void)size;
    return SQFS_ERROR_UNSUPPORTED;
}

static sqfs_u64 output_get_size(const sqfs_file_t *file)
{
    return ((const struct output *)file)->size;
}

static int output_truncate(sqfs_file_t *file, sqfs_u64 size)
{
    return ((struct output *)file)->size == size ? 0 : SQFS_ERROR_UNSUPPORTED;
}

static void output_destroy(sqfs_object_t *object)
{
    (void)object;
}

struct output *output_new(int fd, struct failure *failure)
{
    struct output *output = calloc(1, sizeof *output);
    if (output == NULL) {
        (void)fail_memory(failure);
        return NULL;
    }
    output->file = (sqfs_file_t){.base = {.destroy = output_destroy},
                                 .read_at = output_read_at,
                                 .write_at = output_write_at,
                                 .get_size = output_get_size,
                                 .truncate = output_truncate};
    output->fd = fd;
    output->size = sizeof(sqfs_super_t); /* a hole until the end */
    output->hash = EVP_MD_CTX_new();
    if (output->hash == NULL || EVP_DigestInit_ex(output->hash, EVP_sha256(), NULL) != 1) {
        (void)fail_conversion(failure, 0, "libcrypto gives no SHA-256");
        output_free(output);
        return NULL;
    }
    return output;
}

void output_free(struct output *output)
{
    if (output == NULL)
        return;
    EVP_MD_CTX_free(output->hash);
    free(output);
}

sqfs_file_t *output_file(struct output *output)
{
    return &output->file;
}

/* The superblock through the same code that libsquashfs uses for it: byte order is its business. */
static int write_superblock(sqfs_file_t *file, sqfs_u64 offset, const void *data, size_t size)
{
    struct output *output = (struct output *)file;
    if (offset != 0 || size != sizeof(sqfs_super_t))
        return SQFS_ERROR_SEQUENCE;
    int result = write_fully(output, 0, data, size);
    if (result != 0)
        return result;
    return EVP_DigestUpdate(output->hash, data, size) == 1 ? 0 : SQFS_ERROR_INTERNAL;
}

int output_finish(struct output *output, const sqfs_super_t *super, unsigned char sha256[32], struct failure *failure)
{
    output->file.write_at = write_superblock;
    int result = sqfs_super_write(super, &output->file);
    if (result != 0)
        return output_fail(output, result, "the superblock", failure);
    unsigned size = 0;
    if (EVP_DigestFinal_ex(output->hash, sha256, &size) != 1 || size != 32)
        return fail_conversion(failure, 0, "libcrypto cannot hash");
    return 0;
}

int output_fail(const struct output *output, int code, const char *what, struct failure *failure)
{
    switch (code) {
    case SQFS_ERROR_IO: return fail_conversion(failure, output->errnum, "cannot write %s", what);
    case SQFS_ERROR_ALLOC: return fail_conversion(failure, ENOMEM, "cannot write %s", what);
    case SQFS_ERROR_COMPRESSOR: return fail_conversion(failure, 0, "cannot compress %s", what);
    default: return fail_conversion(failure, 0, "cannot write %s: libsquashfs error %d", what, code);
    }
}
