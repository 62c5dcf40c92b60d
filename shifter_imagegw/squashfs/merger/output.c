/* SPDX-License-Identifier: BSD-3-Clause */
#include "output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sqfs/error.h>

enum { COPY_PIECE = 32 << 20, COPY_BUFFER = 1 << 18 };
enum { PIECE_STEPS = 64, COPY_PER_STEP = 1024 /* bytes */ };

static struct output *output_of(const sqfs_file_t *file)
{
    return (struct output *)file;
}

static void destroy(sqfs_object_t *object)
{
    (void)object; /* lives on the stack of its user */
}

static int read_at(sqfs_file_t *file, sqfs_u64 offset, void *buffer, size_t size)
{
    struct output *o = output_of(file);
    uint8_t *to = buffer;
    while (size > 0) {
        ssize_t got = pread(o->fd, to, size, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            o->errnum = got < 0 ? errno : EIO;
            return SQFS_ERROR_IO;
        }
        to += got;
        offset += (sqfs_u64)got;
        size -= (size_t)got;
    }
    return 0;
}

static int write_at(sqfs_file_t *file, sqfs_u64 offset, const void *buffer, size_t size)
{
    struct output *o = output_of(file);
    const uint8_t *from = buffer;
    while (size > 0) {
        ssize_t put = pwrite(o->fd, from, size, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0) {
            o->errnum = errno;
            return SQFS_ERROR_IO;
        }
        from += put;
        offset += (sqfs_u64)put;
        size -= (size_t)put;
        o->size = offset > o->size ? offset : o->size;
    }
    return 0;
}

static sqfs_u64 get_size(const sqfs_file_t *file)
{
    return output_of(file)->size;
}

static int truncate_to(sqfs_file_t *file, sqfs_u64 size)
{
    struct output *o = output_of(file);
    if (ftruncate(o->fd, (off_t)size) < 0) {
        o->errnum = errno;
        return SQFS_ERROR_IO;
    }
    o->size = size;
    return 0;
}

void output_init(struct output *o, int fd)
{
    memset(o, 0, sizeof *o);
    o->fd = fd;
    o->file.base.destroy = destroy;
    o->file.read_at = read_at;
    o->file.write_at = write_at;
    o->file.get_size = get_size;
    o->file.truncate = truncate_to;
}

int output_pad(struct output *o, uint64_t size, struct error *e)
{
    if (size > o->size && truncate_to(&o->file, size) != 0)
        return error_system(e, o->errnum, "extend");
    return 0;
}

/* The way for filesystems that cannot copy to each other. */
static int copy_through_buffer(struct output *o, const struct archive *from, uint64_t position, size_t size,
                               struct error *e)
{
    uint8_t *buffer = malloc(COPY_BUFFER);
    if (buffer == NULL)
        return error_memory(e);
    int result = 0;
    while (result == 0 && size > 0) {
        size_t part = size < COPY_BUFFER ? size : COPY_BUFFER;
        result = archive_read_at(from, position, buffer, part, e);
        if (result < 0)
            e->archive = (int)from->index;
        else if (write_at(&o->file, o->size, buffer, part) != 0)
            result = error_system(e, o->errnum, "write");
        position += part;
        size -= part;
    }
    free(buffer);
    return result;
}

/* Bytes copied (at most `size`), 0 if this is not the way, -1 on failure. */
static ssize_t copy_in_kernel(struct output *o, const struct archive *from, uint64_t position, size_t size,
                              struct error *e)
{
    off_t source = (off_t)position, target = (off_t)o->size;
    ssize_t done;
    do
        done = copy_file_range(from->fd, &source, o->fd, &target, size, 0);
    while (done < 0 && errno == EINTR);
    if (done < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP))
        return 0;
    if (done < 0)
        return error_system(e, errno, "copy");
    o->size += (uint64_t)done;
    return done;
}

/* Filesystems share whole blocks only, from the first on: what comes before it is a piece of its own. */
static size_t next_piece(const struct output *o, uint64_t position, uint64_t size)
{
    size_t offset = (size_t)(position % OUTPUT_ALIGNMENT);
    size_t longest = offset > 0 && offset == o->size % OUTPUT_ALIGNMENT ? OUTPUT_ALIGNMENT - offset : COPY_PIECE;
    return size < longest ? (size_t)size : longest;
}

int output_copy(struct output *o, const struct archive *from, uint64_t position, uint64_t size,
                struct control *control, struct error *e)
{
    while (size > 0) {
        size_t piece = next_piece(o, position, size);
        if (!o->plain_copy) {
            ssize_t done = copy_in_kernel(o, from, position, piece, e);
            if (done < 0)
                return -1;
            o->plain_copy = done == 0;
            piece = (size_t)done;
        } else if (copy_through_buffer(o, from, position, piece, e) < 0) {
            return -1;
        }
        position += piece;
        size -= piece;
        if (control_step(control, PIECE_STEPS + piece / COPY_PER_STEP, e) < 0)
            return -1;
    }
    return 0;
}
