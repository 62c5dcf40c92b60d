/* SPDX-License-Identifier: BSD-3-Clause */
#include "archive.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tree.h"

static const uint64_t ABSENT = UINT64_MAX; /* position of a table that is not there */

int archive_read_at(const struct archive *a, uint64_t position, void *out, size_t size, struct error *e)
{
    uint8_t *to = out;
    while (size > 0) {
        ssize_t got = pread(a->fd, to, size, (off_t)position);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_system(e, errno, "read");
        if (got == 0)
            return error_damaged(e, "ends too early");
        to += got;
        position += (uint64_t)got;
        size -= (size_t)got;
    }
    return 0;
}

static void decode_superblock(sqfs_super_t *s)
{
    s->magic = le32toh(s->magic);
    s->inode_count = le32toh(s->inode_count);
    s->block_size = le32toh(s->block_size);
    s->fragment_entry_count = le32toh(s->fragment_entry_count);
    s->compression_id = le16toh(s->compression_id);
    s->block_log = le16toh(s->block_log);
    s->flags = le16toh(s->flags);
    s->id_count = le16toh(s->id_count);
    s->version_major = le16toh(s->version_major);
    s->version_minor = le16toh(s->version_minor);
    s->root_inode_ref = le64toh(s->root_inode_ref);
    s->bytes_used = le64toh(s->bytes_used);
    s->id_table_start = le64toh(s->id_table_start);
    s->xattr_id_table_start = le64toh(s->xattr_id_table_start);
    s->inode_table_start = le64toh(s->inode_table_start);
    s->directory_table_start = le64toh(s->directory_table_start);
    s->fragment_table_start = le64toh(s->fragment_table_start);
    s->export_table_start = le64toh(s->export_table_start);
}

/* Only what every kernel with squashfs reads safely: lzo is optional there, lzma was never supported. */
static int compressor_allowed(uint16_t id)
{
    return id == SQFS_COMP_GZIP || id == SQFS_COMP_XZ || id == SQFS_COMP_LZ4 || id == SQFS_COMP_ZSTD;
}

static int check_identity(const sqfs_super_t *s, uint64_t file_size, struct error *e)
{
    if (s->magic != SQFS_MAGIC)
        return error_damaged(e, "is no squashfs: wrong magic number");
    if (s->version_major != SQFS_VERSION_MAJOR || s->version_minor != SQFS_VERSION_MINOR)
        return error_damaged(e, "has squashfs version %u.%u, not 4.0", s->version_major, s->version_minor);
    if (s->block_log < 12 || s->block_log > 20 || s->block_size != UINT32_C(1) << s->block_log)
        return error_damaged(e, "has a block size of %u (log %u)", s->block_size, s->block_log);
    if (!compressor_allowed(s->compression_id))
        return error_damaged(e, "has compressor %u, not one of gzip, xz, lz4, zstd", s->compression_id);
    if (s->bytes_used > file_size)
        return error_damaged(e, "ends too early: %llu of %llu bytes", (unsigned long long)file_size,
                             (unsigned long long)s->bytes_used);
    if (s->id_count == 0 || s->inode_count == 0)
        return error_damaged(e, "has no ids or no inodes");
    return 0;
}

/* The tables in the order in which every writer of squashfs puts them; the kernel wants the same. */
static int check_order(struct archive *a, struct error *e)
{
    const sqfs_super_t *s = &a->super;
    const uint64_t later[] = {s->fragment_table_start, s->export_table_start, s->id_table_start,
                              s->xattr_id_table_start, s->bytes_used};
    uint64_t last = s->directory_table_start;
    if (s->inode_table_start < a->data_start || s->directory_table_start <= s->inode_table_start)
        return error_damaged(e, "has its inode or directory table in the wrong place");
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        if (later[i] == ABSENT)
            continue;
        if (later[i] < last)
            return error_damaged(e, "has its tables in the wrong order");
        if (last == s->directory_table_start)
            a->directory_table_end = later[i];
        last = later[i];
    }
    if (s->id_table_start == ABSENT)
        return error_damaged(e, "has no id table");
    return 0;
}

static int read_options(struct archive *a, struct error *e)
{
    a->data_start = sizeof a->super;
    if ((a->super.flags & SQFS_FLAG_COMPRESSOR_OPTIONS) == 0)
        return 0;
    uint16_t header;
    if (archive_read_at(a, sizeof a->super, &header, sizeof header, e) < 0)
        return -1;
    header = le16toh(header);
    a->options_size = header & 0x7fff;
    if ((header & 0x8000) == 0 || a->options_size == 0 || a->options_size > sizeof a->options)
        return error_damaged(e, "has garbled compressor options");
    a->data_start += sizeof header + a->options_size;
    return archive_read_at(a, sizeof a->super + sizeof header, a->options, a->options_size, e);
}

static int create_decompressor(struct archive *a, struct error *e)
{
    sqfs_compressor_config_t configuration;
    int code = sqfs_compressor_config_init(&configuration, (SQFS_COMPRESSOR)a->super.compression_id,
                                           a->super.block_size, SQFS_COMP_FLAG_UNCOMPRESS);
    if (code == 0)
        code = sqfs_compressor_create(&configuration, &a->decompressor);
    return code == 0 ? 0 : error_library(e, code, 0, "compressor");
}

static int load_ids(struct archive *a, struct error *e)
{
    void *table;
    if (archive_load_table(a, a->super.id_table_start, a->super.id_count, sizeof *a->ids, &table, e) < 0)
        return -1;
    a->ids = table;
    a->id_indices = malloc(a->super.id_count * sizeof *a->id_indices);
    if (a->id_indices == NULL)
        return error_memory(e);
    for (size_t i = 0; i < a->super.id_count; i++) {
        a->ids[i] = le32toh(a->ids[i]);
        a->id_indices[i] = TREE_NONE;
    }
    return 0;
}

static int load_fragments(struct archive *a, struct error *e)
{
    size_t count = a->super.fragment_entry_count;
    if (count == 0 || a->super.fragment_table_start == ABSENT) {
        a->super.fragment_entry_count = 0;
        return 0;
    }
    void *table;
    if (archive_load_table(a, a->super.fragment_table_start, count, sizeof *a->fragments, &table, e) < 0)
        return -1;
    a->fragments = table;
    a->fragment_indices = malloc(count * sizeof *a->fragment_indices);
    if (a->fragment_indices == NULL)
        return error_memory(e);
    for (size_t i = 0; i < count; i++) {
        sqfs_fragment_t *f = &a->fragments[i];
        f->start_offset = le64toh(f->start_offset);
        f->size = le32toh(f->size);
        a->fragment_indices[i] = TREE_NONE;
        uint32_t stored = SQFS_ON_DISK_BLOCK_SIZE(f->size);
        if (f->size >> 25 != 0 || stored == 0 || stored > a->super.block_size ||
            !archive_holds_data(a, f->start_offset, stored))
            return error_damaged(e, "fragment block %zu lies outside the data", i);
    }
    return 0;
}

/* Digests stand behind the file system of a layer archive, as its trailer says (shifter_imagegw/layers/trailer.py). A
 * file without them can be merged as well. */
static int find_digests(struct archive *a, uint64_t file_size, struct error *e)
{
    struct {
        char magic[16];
        uint64_t bytes_used, digests_size;
        uint8_t checksums[64];
    } trailer;
    static const char magic[] = "shifter layer 2\n";
    uint64_t used = a->super.bytes_used, size = (uint64_t)a->super.inode_count * ARCHIVE_DIGEST_SIZE;
    if (file_size - used < sizeof trailer)
        return 0;
    if (archive_read_at(a, file_size - sizeof trailer, &trailer, sizeof trailer, e) < 0)
        return -1;
    if (memcmp(trailer.magic, magic, sizeof trailer.magic) == 0 && le64toh(trailer.bytes_used) == used &&
        le64toh(trailer.digests_size) == size && size <= file_size - used - sizeof trailer)
        a->digests_start = used;
    return 0;
}

int archive_open(struct archive *a, int fd, uint32_t index, struct metadata_cache *cache, struct control *control,
                 struct error *e)
{
    memset(a, 0, sizeof *a);
    a->fd = fd;
    a->index = index;
    a->cache = cache;
    a->control = control;
    a->xattr_effort_left = 1 << 24;
    struct stat status;
    if (fstat(fd, &status) < 0)
        return error_system(e, errno, "fstat");
    if (!S_ISREG(status.st_mode) || status.st_size < (off_t)sizeof a->super)
        return error_damaged(e, "is no regular file or shorter than a superblock");
    if (archive_read_at(a, 0, &a->super, sizeof a->super, e) < 0)
        return -1;
    decode_superblock(&a->super);
    if (check_identity(&a->super, (uint64_t)status.st_size, e) < 0 || read_options(a, e) < 0 ||
        check_order(a, e) < 0 || create_decompressor(a, e) < 0)
        return -1;
    if (load_ids(a, e) < 0 || load_fragments(a, e) < 0 || find_digests(a, (uint64_t)status.st_size, e) < 0)
        return -1;
    return archive_load_xattrs(a, e);
}

void archive_close(struct archive *a)
{
    sqfs_destroy(a->decompressor);
    free(a->ids);
    free(a->id_indices);
    free(a->fragments);
    free(a->fragment_indices);
    free(a->xattr_sets);
    memset(a, 0, sizeof *a);
}

int archive_check_export(struct archive *a, struct error *e)
{
    void *table;
    if (a->super.export_table_start == ABSENT)
        return 0;
    if (archive_load_table(a, a->super.export_table_start, a->super.inode_count, sizeof(uint64_t), &table, e) < 0)
        return -1;
    const uint64_t *references = table;
    struct metadata_cursor c;
    int result = 0;
    for (size_t i = 0; result == 0 && i < a->super.inode_count; i++) {
        result = metadata_seek(&c, a->super.inode_table_start, a->super.directory_table_start,
                               le64toh(references[i]), e);
        if (result == 0)
            result = control_step(a->control, 1, e);
    }
    free(table);
    return result;
}

int archive_holds_data(const struct archive *a, uint64_t start, uint64_t size)
{
    uint64_t end = a->super.inode_table_start;
    return start >= a->data_start && start <= end && size <= end - start;
}
